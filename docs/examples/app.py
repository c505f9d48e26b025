from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, cached, invalidates

cache = HTTPCache()
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)


class Product(BaseModel):
    name: str
    brand: str
    price: int


PRODUCTS = {42: Product(name="Kettle", brand="acme", price=30), 43: Product(name="Lamp", brand="acme", price=25)}


@app.get("/products/{product_id}", dependencies=[cached(ttl=300, tags=["product:{product_id}"])])
async def read_product(product_id: int, tags: CacheTags) -> Product:
    if product_id not in PRODUCTS:
        raise HTTPException(404, "no such product")
    product = PRODUCTS[product_id]
    tags.add(f"brand:{product.brand}")  # known only now
    return product


@app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}")])
async def change_product(product_id: int, product: Product) -> Product:
    PRODUCTS[product_id] = product
    return product


@app.post("/brands/{brand}/discount", dependencies=[invalidates("brand:{brand}")])
async def give_discount(brand: str, amount: int) -> int:
    concerned = [product for product in PRODUCTS.values() if product.brand == brand]
    for product in concerned:
        product.price -= amount
    return len(concerned)
