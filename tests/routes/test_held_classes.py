"""What a parameter's annotation does, and the code of a class that one names, is in the name of a partition."""

# No postponed annotations: the apps name what their own source has.

import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

from fastapi_cacheinval.routes.plan import RoutePlan

HEAD = """
import dataclasses, enum, functools, typing
from typing import Annotated, Any, NewType, Optional
from fastapi import Depends, FastAPI, Header, Query
from pydantic import *
from fastapi_cacheinval import PartitionBy, cached
class Model(BaseModel):
    x_a: str = ""
    x_b: str = ""
"""
TAIL = """
app = FastAPI(openapi_url=None)
@app.get("/it", dependencies=[cached(ttl=60, partition_by=part)])
def it() -> None: ...
"""
MODEL = "\ndef part(of: Annotated[M, Header()]) -> str: return of.k"
VALIDATED = "\ndef part(x_k: Annotated[str, Header(), {}]) -> str: return x_k"
CLASS = "\n    def __init__(self, x_a: Annotated[str, Header()]): self.a = x_a"
GIVEN = "\ndef part(of: Annotated[P, Depends()]) -> str: return of.k"

# A release reads `a` where the next one reads `b`.
RELEASES = {
    "a validator": VALIDATED.format("AfterValidator(lambda v: v.~)"),
    "a validator by name": "def a(v): return v\ndef b(v): return v" + VALIDATED.format("BeforeValidator(~)"),
    "a partial": "def f(at, v): return v" + VALIDATED.format("AfterValidator(functools.partial(f, '~'))"),
    "an object": "class Part:\n    def __init__(self, at): self.at = at\n    def __get_pydantic_core_schema__(self, s, h):"
    " return h(s)" + VALIDATED.format("Part('~')"),
    "a method of an object": "class Part:\n    def __get_pydantic_core_schema__(self, s, h): return h('~')"
    + VALIDATED.format("Part()"),
    "a validator of an item": "\ndef part(x_k: Annotated[list[Annotated[str, AfterValidator(lambda v: v.~)]], Header()]):"
    " return x_k",
    "a text": "from __future__ import annotations\n" + VALIDATED.format("AfterValidator(lambda v: v.~)"),
    "beside what is unknown": "\ndef part(x_k: 'Annotated[str, Header(), AfterValidator(lambda v: v.~)]') -> 'Unknown':"
    " return x_k",
    "a new type": "T = NewType('T', Annotated[str, AfterValidator(lambda v: v.~)])"
    "\ndef part(x_k: Annotated[T, Header()]) -> str: return x_k",
    "a default": "\ndef part(x_k: Annotated[str, Header(default_factory=lambda: '~')]) -> str: return x_k",
    "a field's validator": "class M(Model):\n    @field_validator('x_a')\n    @classmethod\n    def f(cls, v): return v.~\n"
    "    k: str = ''" + MODEL,
    "a field's annotation": "class M(BaseModel):\n    k: Annotated[str, AfterValidator(lambda v: v.~)]" + MODEL,
    "a field's default": "class M(BaseModel):\n    k: str = Field(default_factory=lambda: '~')" + MODEL,
    "a field's plain default": "class M(Model):\n    k: str = '~'" + MODEL,
    "a default in a field": "class M(Model):\n    k: str = Field('~')" + MODEL,
    "an inherited default": "class N(Model):\n    k: str = '~'\nclass M(N): ..." + MODEL,
    "a default of a model in a model": "class N(Model):\n    k: str = '~'\nclass M(BaseModel):\n    n: N = N()" + MODEL,
    "a list as a default": "class M(Model):\n    k: list[str] = ['~']" + MODEL,
    "a private default": "class M(Model):\n    _k: str = PrivateAttr('~')" + MODEL,
    "a private default's factory": "class M(Model):\n    _k: str = PrivateAttr(default_factory=lambda: '~')" + MODEL,
    "a constraint": "class M(Model):\n    k: str = Field('', pattern='~')" + MODEL,
    "a conversion": "class M(Model):\n    k: Annotated[str, StringConstraints(to_lower='~' == 'a')] = ''" + MODEL,
    "a conversion of a parameter": "\ndef part(x_k: Annotated[str, StringConstraints(to_lower='~' == 'a'), Header()]):"
    " return x_k",
    "a model's configuration": "class M(Model):\n    model_config = ConfigDict(title='~')\n    k: str = ''" + MODEL,
    "a default of a dataclass": "@dataclasses.dataclass\nclass P:\n    k: Annotated[str, Header()] = '~'" + GIVEN,
    "a model's validator": "class M(Model):\n    @model_validator(mode='before')\n    @classmethod\n"
    "    def f(cls, v): return v['x_~']\n    k: str = ''" + MODEL,
    "a property": "class M(Model):\n    @property\n    def k(self): return self.x_~" + MODEL,
    "a computed field": "class M(Model):\n    @computed_field\n    @property\n    def k(self) -> str: return self.x_~"
    + MODEL,
    "a cached property": "class M(Model):\n    @functools.cached_property\n    def k(self) -> str: return self.x_~"
    + MODEL,
    "a method": "class M(Model):\n    def __str__(self): return self.x_~" + MODEL.replace("of.k", "str(of)"),
    "after": "class M(Model):\n    k: str = ''\n    def model_post_init(self, c): self.k = self.x_~" + MODEL,
    "an inherited property": "class N(Model):\n    @property\n    def k(self): return self.x_~\nclass M(N): ..."
    + MODEL,
    "an overridden method": "class N(Model):\n    def f(self): return self.x_~\nclass M(N):\n"
    "    def f(self): return super().f()" + MODEL,
    "a generic model": "T = typing.TypeVar('T')\nclass N(Model, typing.Generic[T]):\n    @property\n"
    "    def k(self): return self.x_~\nM = N[int]" + MODEL,
    "a model in a model": "class N(Model):\n    @property\n    def k(self): return self.x_~\nclass M(BaseModel):\n"
    "    n: list[N] = []" + MODEL,
    "a model as text": "class M(Model):\n    @property\n    def k(self): return self.x_~"
    "\ndef part(of: Annotated[Json[M], Header()]) -> str: return of.k",
    "an optional model": "class M(Model):\n    @property\n    def k(self): return self.x_~"
    "\ndef part(of: Annotated[Optional[M], Header()]) -> str: return of.k",
    "an enum": "class E(enum.Enum):\n    it = 1\n    @property\n    def k(self): return '~'"
    "\ndef part(e: E) -> str: return e.k",
    "a method of a class": "class P:\n    k = ''\n    def f(self): return '~'" + CLASS + GIVEN,
    "a wrapped method": "class P:\n    k = ''\n    @functools.lru_cache\n    def f(self): return '~'" + CLASS + GIVEN,
    "a property of a dataclass": "@dataclasses.dataclass\nclass P:\n    x_a: Annotated[str, Header()] = ''\n"
    "    @property\n    def k(self): return self.x_~" + GIVEN,
    "a metaclass": "class Meta(type):\n    def __call__(cls, x_a: str):\n        return super().__call__('~')\n"
    "class P(metaclass=Meta):\n    def __init__(self, x_a): self.k = x_a" + GIVEN,
    "what a dependency gives": "class P:\n    @property\n    def k(self): return '~'\ndef given() -> P: return P()"
    "\ndef part(of: Any = Depends(given)) -> str: return of.k",
    "what a dependency is said to give": "class P:\n    @property\n    def k(self): return '~'\ndef given(): return P()"
    "\ndef part(of: Annotated[P, Depends(given)]) -> str: return of.k",
    "what a key gets": "class P:\n    @property\n    def k(self): return '~'\ndef given() -> P: return P()"
    "\npart = PartitionBy(given, key=lambda of: of.k)",
    "a cached property of what a key gets": "class P:\n    @functools.cached_property\n    def k(self): return '~'"
    "\ndef given(x_a: Annotated[str, Header()]) -> P: return P()\npart = PartitionBy(given, key=lambda of: of.k)",
    "a held object's method": "class S:\n    def f(self): return '~'\nclass P:\n    def __init__(self): self.s = (S(),)\n"
    "    def __call__(self, x_a: Annotated[str, Header()]): return x_a\npart = P()",
    "a held object's function": "class S:\n    def __init__(self): self.f = lambda: '~'\nclass P:\n"
    "    def __init__(self): self.s = S()\n    def __call__(self, x_a: str): return x_a\npart = P()",
}


def plan_of(source: str, letter: str, plan: Any) -> RoutePlan:
    # Pydantic asks the module for its generic models.
    space = vars(sys.modules.setdefault("shop", ModuleType("shop")))
    future = "from __future__ import annotations\n" if source.startswith("from __future__") else ""
    exec(future + HEAD + source.removeprefix(future).replace("~", letter) + TAIL, space)
    found: RoutePlan = plan(space["app"])
    return found


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_that_reads_another_thing_has_another_name(plan: Any, name: str) -> None:
    """The same release has the same name, which every process knows."""
    one, same, other = (plan_of(RELEASES[name], letter, plan) for letter in "aab")
    assert one.covered_by == same.covered_by != other.covered_by
    assert one.known_everywhere


def test_a_validator_without_a_name_stays_in_its_process(plan: Any) -> None:
    """Another release may use another such thing under the same names."""
    source = VALIDATED.format("AfterValidator({'a': 1}.get)")
    assert not plan_of(source, "a", plan).known_everywhere


def test_classes_of_many_functions_keep_the_name_known_everywhere(plan: Any) -> None:
    """Of what a callable leads to without holding it the nearest counts; recursive types have an end."""
    many = "\n".join(f"    def f{index}(self): return {index}" for index in range(500))
    source = f"class M(Model):\n    of: list['M'] = []\n    k: str = ''\n{many}" + MODEL
    assert plan_of(source, "a", plan).known_everywhere


def test_each_process_gives_the_same_names() -> None:
    """Whatever order its sets and classes have."""
    code = (
        "import hashlib\nfrom tests.routes.test_held_classes import *\n"
        "from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of as stack\n"
        "from fastapi_cacheinval.routes.table import RouteTable\n"
        "def plan(app): return (inside := stack(app)) and RouteTable(inside.app, inside).plans[0]\n"
        "names = [plan_of(source, 'a', plan).covered_by for source in RELEASES.values()]\n"
        "print(hashlib.sha256(repr(names).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
