"""What an app's routes say of caching: run it. Nothing is connected, and no handler runs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Header

from fastapi_cacheinval import CacheMiddleware, HTTPCache, audit_app, cached, invalidates

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache.from_url("redis://localhost:6379/0"))


def tenant(x_tenant: Annotated[str, Header()]) -> str:
    return x_tenant


@app.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}"])])
async def read_product(product_id: int) -> dict[str, int]:
    return {"id": product_id}


@app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}", "product")])
async def update_product(product_id: int) -> None: ...


@app.get("/dashboard", dependencies=[cached(ttl=60, partition_by=tenant, tags=["products"])])
async def read_dashboard(name: Annotated[str, Depends(tenant)]) -> str:
    return name


if __name__ == "__main__":
    audit = audit_app(app)
    for route in audit.routes:
        print(route.route)
        print(f"  shared by {route.shared_by}: {route.why}")
        print(f"  key: {', '.join(route.key)}; tags: {', '.join(route.tags)}; fresh for {route.ttl:g} s")
        print(f"  answered at the {route.lookup}; purged by: {', '.join(route.purged_by) or 'nothing'}")
    for mutation in audit.mutations:
        print(f"{mutation.route} purges {', '.join(mutation.purges)}")
    print("Holes:")
    print(*audit.holes, sep="\n")
