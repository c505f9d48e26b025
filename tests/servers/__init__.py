"""Real servers for tests, with real faults; README.md beside this file has what was found out with them."""

from tests.servers.cluster import Cluster, cluster
from tests.servers.group import Group, group
from tests.servers.keys import every_key_has_a_ttl_or_is_permanent, keys_without_a_ttl
from tests.servers.processes import Processes, processes
from tests.servers.proxy import Proxy, tcp_proxy, tls_terminator
from tests.servers.replicated import Replicated, replicated
from tests.servers.sentinels import Sentinels, sentinels
from tests.servers.valkey import Valkey, valkey
from tests.servers.waiting import PATIENCE, until

__all__ = [
    "PATIENCE",
    "Cluster",
    "Group",
    "Processes",
    "Proxy",
    "Replicated",
    "Sentinels",
    "Valkey",
    "cluster",
    "every_key_has_a_ttl_or_is_permanent",
    "group",
    "keys_without_a_ttl",
    "processes",
    "replicated",
    "sentinels",
    "tcp_proxy",
    "tls_terminator",
    "until",
    "valkey",
]
