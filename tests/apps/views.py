"""A shop of class-based views: a token stands for a user, who is handed to the views."""

from dataclasses import asdict, dataclass
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from fastapi_cacheinval import CacheMiddleware, HTTPCache, PartitionBy, cached, invalidates


@dataclass
class User:
    """Who asks."""

    id: int
    name: str
    admin: bool = False


USERS = {"token-of-alice": User(1, "alice", admin=True), "token-of-bob": User(2, "bob"), "token-of-eve": User(3, "eve")}
bearer = HTTPBearer()


def current_user(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> User:
    """The user that the token stands for."""
    if credentials.credentials not in USERS:
        raise HTTPException(401, "sign in first")
    return USERS[credentials.credentials]


def require_admin(user: Annotated[User, Depends(current_user)]) -> None:
    """Turns away who is no administrator."""
    if not user.admin:
        raise HTTPException(403, "administrators only")


EACH_USER = cached(ttl=60, partition_by=PartitionBy(current_user, key=lambda user: user.id))


class ProductViews:
    """What everybody may read, and an administrator may write."""

    def __init__(self) -> None:
        self.names = {1: "kettle", 2: "cup"}
        self.router = APIRouter(prefix="/products")
        self.router.add_api_route("", self.list_all, methods=["GET"], dependencies=[cached(ttl=60, tags=["products"])])
        self.router.add_api_route(
            "/{product_id}", self.read, methods=["GET"], dependencies=[cached(ttl=60, tags=["product:{product_id}"])]
        )
        self.router.add_api_route(
            "/{product_id}",
            self.write,
            methods=["PUT"],
            dependencies=[Depends(require_admin), invalidates("products", "product:{product_id}")],
        )

    def list_all(self) -> list[str]:
        """All names."""
        return sorted(self.names.values())

    def read(self, product_id: int) -> str:
        """One name."""
        if product_id not in self.names:
            raise HTTPException(404, "no such product")
        return self.names[product_id]

    def write(self, product_id: int, name: str) -> None:
        """Give a product a name."""
        self.names[product_id] = name


class OrderViews:
    """Each user's own orders, and their number for administrators."""

    def __init__(self) -> None:
        self.orders: dict[int, list[int]] = {}
        self.router = APIRouter()
        self.router.add_api_route("/me", self.read_me, methods=["GET"], dependencies=[EACH_USER])
        # A POST purges its own path, for all users.
        self.router.add_api_route("/orders", self.read_mine, methods=["GET"], dependencies=[EACH_USER])
        self.router.add_api_route("/orders", self.place, methods=["POST"], dependencies=[invalidates("orders")])
        self.router.add_api_route(
            "/report",
            self.report,
            methods=["GET"],
            dependencies=[Depends(require_admin), cached(ttl=60, guarded_by=require_admin, tags=["orders"])],
        )

    def read_me(self, user: Annotated[User, Depends(current_user)]) -> dict[str, object]:
        """Who asks."""
        return asdict(user)

    def read_mine(self, user: Annotated[User, Depends(current_user)]) -> list[int]:
        """The products that the user has ordered."""
        return self.orders.get(user.id, [])

    def place(self, product_id: int, user: Annotated[User, Depends(current_user)]) -> None:
        """Order a product."""
        self.orders.setdefault(user.id, []).append(product_id)

    def report(self) -> int:
        """How many orders there are."""
        return sum(map(len, self.orders.values()))


def create_app() -> FastAPI:
    """The shop, with nothing ordered."""
    app = FastAPI(openapi_url=None)
    app.include_router(ProductViews().router)
    app.include_router(OrderViews().router)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    return app
