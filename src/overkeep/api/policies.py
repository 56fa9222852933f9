# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls about policies. Administrators change them; others see those of workloads that they may see."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Response

from overkeep.api.asked import TheCaller, TheController
from overkeep.api.paging import Listing, ThePaging, listed
from overkeep.api.policy_documents import ForesightOut, PolicyIn, PolicyOut, policy_out, policy_value
from overkeep.api.repeatable import Repeatable
from overkeep.api.versions import TheVersion, tag
from overkeep.controller.records import StoredPolicy
from overkeep.controller.rights import Caller
from overkeep.controller.service import Controller
from overkeep.errors import NotFound

router = APIRouter(prefix="/api/v1/policies", tags=["policies"], route_class=Repeatable)

Days = Annotated[int, Query(ge=1, le=3660, description="How many days are looked ahead")]


@router.get("")
def list_policies(controller: TheController, caller: TheCaller, asked: ThePaging) -> list[PolicyOut]:
    """The policies of workloads that the caller may see, by name; all of them for administrators."""
    seen = _seen(controller, caller)

    def key(policy: StoredPolicy) -> tuple[str, str]:
        return policy.policy.name, policy.id

    listing = Listing(
        read=listed(controller.policies.all(), key), key=key, sees=lambda policy: seen is None or policy.id in seen
    )
    return [policy_out(policy) for policy in listing.page(asked)]


@router.post("", status_code=201)
def create_policy(asked: PolicyIn, response: Response, controller: TheController, caller: TheCaller) -> PolicyOut:
    """Make a policy; for administrators."""
    caller.require_admin("make policies of")
    made = controller.policies.create(policy_value(asked), caller=caller.name)
    response.headers["Location"] = f"/api/v1/policies/{made.id}"
    return _answer(response, made)


@router.post("/preview")
def preview(asked: PolicyIn, controller: TheController, caller: TheCaller, days: Days = 365) -> ForesightOut:
    """What a year of a policy keeps that need not exist. For administrators."""
    caller.require_admin("make policies of")
    return ForesightOut.model_validate(controller.policies.foresee(policy_value(asked), days=days))


@router.get("/{policy}")
def show_policy(policy: str, response: Response, controller: TheController, caller: TheCaller) -> PolicyOut:
    """One policy, by name or id."""
    return _answer(response, find_policy(policy, controller, caller))


@router.get("/{policy}/preview")
def preview_policy(policy: str, controller: TheController, caller: TheCaller, days: Days = 365) -> ForesightOut:
    """What a year of a policy keeps, when all its runs succeed."""
    found = find_policy(policy, controller, caller)
    return ForesightOut.model_validate(controller.policies.foresee(found.policy, days=days))


@router.put("/{policy}")
def change_policy(
    policy: str,
    asked: PolicyIn,
    response: Response,
    controller: TheController,
    caller: TheCaller,
    version: TheVersion,
) -> PolicyOut:
    """Write a policy anew; for administrators. `If-Match` names the version that is changed."""
    caller.require_admin("change policies of")
    known = _of_version(find_policy(policy, controller, caller), version)
    return _answer(response, controller.policies.update(known, policy_value(asked), caller=caller.name))


@router.delete("/{policy}", status_code=204)
def delete_policy(policy: str, controller: TheController, caller: TheCaller) -> None:
    """Remove a policy that no workload has; for administrators."""
    caller.require_admin("delete policies of")
    controller.policies.delete(find_policy(policy, controller, caller), caller=caller.name)


def find_policy(name: str, controller: Controller, caller: Caller) -> StoredPolicy:
    """The policy, which does not exist for a caller who may not see it."""
    found = controller.policies.get(name)
    seen = _seen(controller, caller)
    if seen is not None and found.id not in seen:
        raise NotFound(kind="policy", name=name, how="overkeep policy list")
    return found


def _seen(controller: Controller, caller: Caller) -> set[str] | None:
    """The ids of the policies that a caller may see; None for all."""
    shown = caller.shown()
    if shown is None:
        return None
    given = controller.policies.users()
    theirs = controller.ports.store.workloads.of_vms(shown)
    return {policy for item, policy in given.items() if item in theirs and caller.may_see(sorted(theirs[item]))}


def _answer(response: Response, policy: StoredPolicy) -> PolicyOut:
    tag(response, policy.version)
    return policy_out(policy)


def _of_version(found: StoredPolicy, version: int | None) -> StoredPolicy:
    """The policy as the caller knows it: the store refuses to change it when it is another one by now."""
    return found if version is None else replace(found, version=version)
