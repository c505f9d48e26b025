import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.cache import cache_control

from fastapi_cacheinval import CacheMiddleware, HTTPCache, add_tags

cache = HTTPCache()
PRICES = {42: 30}


@cache_control(s_maxage=300)
def list_prices(_: HttpRequest) -> JsonResponse:
    return JsonResponse(PRICES, headers={"Surrogate-Key": "prices"})


async def change_price(request: HttpRequest, product_id: int) -> JsonResponse:
    PRICES[product_id] = int(request.GET["price"])
    add_tags("prices")
    return JsonResponse(PRICES)


# In a project these are its settings.py and urls.py.
urlpatterns = (path("prices", list_prices), path("prices/<int:product_id>", change_price))
if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        ROOT_URLCONF=urlpatterns,
        SECRET_KEY=os.urandom(16).hex(),
    )

application = CacheMiddleware(get_asgi_application(), cache=cache, honour_headers=True)  # asgi.py
app = application
