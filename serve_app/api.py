"""The web application: its routes, and JSON for every error."""

from __future__ import annotations

from fastapi import FastAPI

from serve_app.errors import UploadLimit, install
from serve_app.routes.health import health
from serve_app.routes.page import page
from serve_app.routes.reports import reports
from serve_app.service import Service


def build_api(service: Service, max_upload_bytes: int) -> FastAPI:
    """Build the ASGI application.

    Args:
        service: what the routes work with.
        max_upload_bytes: size of the largest accepted request body.
    """
    # FastAPI's interactive pages load scripts from other servers; the schema is at /openapi.json.
    api = FastAPI(
        title="LM-RRG chest radiograph reports", version="1", docs_url=None, redoc_url=None
    )
    api.add_middleware(UploadLimit, limit=max_upload_bytes)
    install(api)
    for router in (health(service), page(), reports(service)):
        api.include_router(router)
    return api
