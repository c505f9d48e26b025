from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.security import OAuth2PasswordBearer
from fastapi.templating import Jinja2Templates
from jinja2 import DictLoader, Environment

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())

FRONT = "<p>We sell {{ products|join(', ') }}.</p>"
ADMIN = "<p>{{ products|length }} products</p>"
templates = Jinja2Templates(env=Environment(autoescape=True, loader=DictLoader({"front": FRONT, "admin": ADMIN})))
PRODUCTS = ["kettle"]


def require_admin(token: Annotated[str, Depends(OAuth2PasswordBearer(tokenUrl="token"))]) -> None:
    if token != "token-of-alice":
        raise HTTPException(403, "administrators only")


@app.get("/", dependencies=[cached(ttl=300, tags=["products"], request_is_shared=True)])
async def front_page(request: Request) -> Response:
    return templates.TemplateResponse(request, "front", {"products": PRODUCTS})


@app.get("/admin", dependencies=[cached(ttl=30, tags=["products"], guarded_by=require_admin, request_is_shared=True)])
async def admin_page(request: Request) -> Response:
    return templates.TemplateResponse(request, "admin", {"products": PRODUCTS})


@app.post("/admin/products", dependencies=[Depends(require_admin), invalidates("products")])
async def add_product(name: str) -> Response:
    PRODUCTS.append(name)
    return RedirectResponse("/admin", 303)
