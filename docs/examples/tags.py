from fastapi import FastAPI, Response

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, add_tags, cached, invalidates

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())

BRAND_OF = {42: "acme", 43: "acme"}


@app.get("/products", dependencies=[cached(ttl=300, tags=["products", "language:{language}"])])
async def list_products(language: str = "en") -> list[int]:
    return list(BRAND_OF)


@app.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}"])])
async def read_product(product_id: int, tags: CacheTags) -> str:
    tags.add(f"brand:{BRAND_OF[product_id]}")
    return f"{product_id}, {price_of(product_id)}"


def price_of(product_id: int) -> int:
    add_tags(f"price:{product_id}")  # no request at hand here, and none needed
    return 30


@app.get("/brands/{brand}", dependencies=[cached(ttl=300)])
async def read_brand(brand: str, response: Response) -> str:
    response.headers["Surrogate-Key"] = f"brand:{brand} brands"
    return brand


@app.delete("/products/{product_id}", dependencies=[invalidates("product:{product_id}", "products")], status_code=204)
async def delete_product(product_id: int, tags: CacheTags) -> None:
    tags.add(f"brand:{BRAND_OF.pop(product_id)}")  # on a mutation, added tags are purged
