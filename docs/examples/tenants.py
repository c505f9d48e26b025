from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi.security import OAuth2PasswordBearer

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached, invalidates

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())

TENANTS = {"token-of-alice": "acme", "token-of-bob": "bolt"}
ORDERS: dict[str, list[str]] = {"acme": [], "bolt": []}
PRODUCTS = ["kettle", "lamp", "ladle"]


def current_tenant(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))]) -> str:
    if token not in TENANTS:
        raise HTTPException(401, "sign in first")
    return TENANTS[token]


Tenant = Annotated[str, Depends(current_tenant)]


@app.get("/orders", dependencies=[cached(ttl=300, partition_by=current_tenant)])
def read_orders(tenant: Tenant, tags: CacheTags) -> list[str]:
    tags.add(f"orders:{tenant}")
    return ORDERS[tenant]


@app.post("/orders", dependencies=[invalidates(paths=False)])  # the path is that of all tenants
def order(product: str, tenant: Tenant, tags: CacheTags) -> None:
    ORDERS[tenant].append(product)
    tags.add(f"orders:{tenant}")


@app.get("/products", dependencies=[cached(ttl=20, stale_while_revalidate=60, tags=["products"])])
def search(q: Annotated[str, Query(max_length=40)] = "", page: Annotated[int, Query(ge=1, le=50)] = 1) -> list[str]:
    return [product for product in PRODUCTS if product.startswith(q)][20 * (page - 1) : 20 * page]
