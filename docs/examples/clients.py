import redis.asyncio

from fastapi_cacheinval import HTTPCache

one_server = HTTPCache.from_url("rediss://shop:password@cache.internal:6380/0?ssl_ca_certs=/etc/ssl/cert.pem")
a_socket = HTTPCache.from_url("unix:///run/valkey/valkey.sock")
sentinels = HTTPCache.from_url("redis+sentinel://sentinel-1:26379,sentinel-2:26379,sentinel-3:26379/primary/0")
a_cluster = HTTPCache.from_url("redis+cluster://node-1:7000,node-2:7000,node-3:7000")
yours = HTTPCache.from_client(redis.asyncio.Redis(host="cache.internal"))  # its settings; neither used nor closed
with_failover = HTTPCache.from_url(
    "redis+sentinel://sentinel-1:26379,sentinel-2:26379,sentinel-3:26379/primary/0",
    confirm_replicas=1,  # of three servers
)
