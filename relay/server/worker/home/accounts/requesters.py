"""Whether the requester of a change of an account may still request it, when it is decided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.chat.accounts import requests
from relay.server.worker.home.accounts.operators import Confirmed

if TYPE_CHECKING:
    from relay.bus.messages import Ask
    from relay.chat.accounts.account import Account
    from relay.chat.accounts.requests import Request
    from relay.server.worker.home.accounts.operators import Operators


def may_still_ask(
    account: Account | None, request: Request, ask: Ask, operators: Operators
) -> Confirmed:
    """Return whether a device that requested a change may still do so.

    It was allowed when it asked, but a decision in between may have removed the device or revoked
    operator rights. A request that was waiting behind such a decision must not restore them, and
    one that was under way must not use them.

    Args:
        account: that the request is about; None: an invitation.
        request: the request.
        ask: contains it.
        operators: confirms who is an operator.
    """
    # signed by a key that is about to become a device
    new = isinstance(request, requests.Register | requests.Enrol | requests.Bind | requests.Release)
    if new or not ask.key_id:
        return Confirmed.YES
    if account is None or ask.by != account.handle:
        return operators.confirms(ask.by, ask.root)
    allowed = account.operator or type(request) in requests.OF_DEVICES
    return Confirmed.YES if allowed and account.may_ask(ask.key_id) else Confirmed.NO
