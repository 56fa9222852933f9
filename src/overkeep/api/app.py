# SPDX-License-Identifier: GPL-3.0-or-later
"""The web application: its routes, and what stands in front of them."""

from __future__ import annotations

from fastapi import FastAPI

from overkeep import __version__
from overkeep.api import (
    events,
    jobs,
    limits,
    openapi,
    points,
    policies,
    problems,
    scheduler,
    service,
    targets,
    workloads,
)
from overkeep.api.asked import Backend
from overkeep.api.bodies import Bodies
from overkeep.api.streams import Streams


def create_app(backend: Backend | None) -> FastAPI:
    """Return the application over `backend`; without one it serves for its OpenAPI document alone."""
    app = FastAPI(
        title="Overkeep",
        version=__version__,
        summary="Agentless backup and recovery for the virtual machines of oVirt, RHV and OLVM",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # served by a route of ours, which asks for a token as all do
    )
    app.state.backend = backend
    app.state.streams = Streams()
    for module in (service, openapi, workloads, policies, scheduler, limits, jobs, points, targets, events):
        app.include_router(module.router)
    problems.install(app)
    app.add_middleware(Bodies)
    return app
