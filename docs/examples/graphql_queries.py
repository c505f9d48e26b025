import json
from typing import Any

from fastapi import FastAPI
from graphql import build_schema, graphql

from fastapi_cacheinval import (
    CacheMiddleware,
    HTTPCache,
    ResponseToStore,
    add_tags,
    cached,
    invalidates_nothing,
    purge_with_request,
)

app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache())

SCHEMA = build_schema("""
type Query { price(product: Int!): Int }
type Mutation { reprice(product: Int!, price: Int!): Int }
""")
PRICES = {42: 30}


class Root:
    def price(self, _: Any, product: int) -> int | None:
        add_tags(f"price:{product}")
        return PRICES.get(product)

    def reprice(self, _: Any, product: int, price: int) -> int:
        PRICES[product] = price
        purge_with_request(f"price:{product}")  # after the commit
        return price


async def execute(document: str, variables: dict[str, Any]) -> dict[str, Any]:
    result = await graphql(SCHEMA, document, Root(), variable_values=variables)
    return dict(result.formatted)


QUERIES = {"price": "query ($product: Int!) { price(product: $product) }"}  # clients name them


def has_no_errors(response: ResponseToStore) -> bool:
    return "errors" not in json.loads(response.body)  # GraphQL answers an error with 200


@app.get("/graphql", dependencies=[cached(ttl=60, should_store=has_no_errors)])
async def run_query(query: str, variables: str = "{}") -> dict[str, Any]:
    return await execute(QUERIES[query], json.loads(variables))


@app.post("/graphql", dependencies=[invalidates_nothing()])  # the resolvers know what has changed
async def run(request: dict[str, Any]) -> dict[str, Any]:
    return await execute(request["query"], request.get("variables", {}))
