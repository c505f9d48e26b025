from fastapi import FastAPI
from pydantic import BaseModel

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached, invalidates

cache = HTTPCache.from_url("redis://localhost:6379/0")
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


class Product(BaseModel):
    name: str
    brand: str
    price: int


PRODUCTS = {42: Product(name="Kettle", brand="acme", price=30)}


@app.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}"])])
async def read_product(product_id: int, tags: CacheTags) -> Product:
    product = PRODUCTS[product_id]
    tags.add(f"brand:{product.brand}")
    return product


@app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}")])
async def change_product(product_id: int, product: Product) -> Product:
    PRODUCTS[product_id] = product
    return product
