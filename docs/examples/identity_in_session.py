from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())

TENANTS = {"token-of-alice": "acme", "token-of-bob": "bolt"}
bearer = OAuth2PasswordBearer(tokenUrl="token")
engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})


def current_tenant(token: Annotated[str, Depends(bearer)]) -> str:
    if token not in TENANTS:
        raise HTTPException(401, "sign in first")
    return TENANTS[token]


def tenant_session(tenant: Annotated[str, Depends(current_tenant)]) -> Iterator[Session]:
    with Session(engine, info={"tenant": tenant}) as session:
        yield session


@app.get("/orders", dependencies=[cached(ttl=60, partition_by=current_tenant, guarded_by=tenant_session)])
def read_orders(session: Annotated[Session, Depends(tenant_session)]) -> str:
    return f"the orders of {session.info['tenant']}"
