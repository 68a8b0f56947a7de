"""The web application: its routes, and JSON for every error."""

from __future__ import annotations

from fastapi import FastAPI

from serve_app.errors import install
from serve_app.routes.chat import chat
from serve_app.routes.films import films
from serve_app.routes.health import health
from serve_app.routes.page import page
from serve_app.routes.reports import reports
from serve_app.routes.scores import scores
from serve_app.service import Service


def build_api(service: Service) -> FastAPI:
    """Build the ASGI application, which stands behind a :class:`~serve_app.gate.middleware.Gate`.

    Args:
        service: what the routes work with.
    """
    # FastAPI's interactive pages load scripts from other servers; the schema is at /openapi.json.
    api = FastAPI(
        title="LM-RRG chest radiograph reports", version="1", docs_url=None, redoc_url=None
    )
    install(api)
    routers = (health(service), page(), films(service), reports(service), scores(), chat(service))
    for router in routers:
        api.include_router(router)
    return api
