"""The routes of the service: one module for each group, each a function that returns a router."""

PATHS = (
    "/",
    "/healthz",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/v1/films",
    "/v1/reports",
    "/v1/score",
    "/v1/models",
    "/v1/chat/completions",
)
"""Every path of the service, as audit lines and metrics name them."""
