import runpy
from pathlib import Path

from fastapi.testclient import TestClient

from fastapi_cacheinval.testing import assert_hit

app = runpy.run_path(str(Path(__file__).with_name("answers.py")))["app"]

if __name__ == "__main__":
    with TestClient(app) as client:
        try:
            assert_hit(client.get("/login"))
        except AssertionError as story:
            print(story)
