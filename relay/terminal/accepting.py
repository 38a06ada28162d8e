"""``/accept``: a person reviews and accepts devices that contradict what was seen before."""

from __future__ import annotations

from relay.client.aio import Client
from relay.client.errors import DeviceChainError
from relay.terminal.device_notices import change_lines, code_of


async def accept(client: Client, name: str, code: str) -> list[str]:
    """Accept the list that a code identifies, or describe the present one; return what to show."""
    try:
        change = await client.device_change(name)
        if change is None:
            return [f"nothing contradicts what was seen of {name} before"]
        wanted = code_of(change)
        if code.lower() != wanted:
            wrong = [f"{code!r} is not the code of this list"] if code else []
            return [*change_lines(change), *wrong, f"if it is theirs: /accept {name} {wanted}"]
        await client.accept_devices(change)
    except DeviceChainError as error:
        return [str(error)]
    return [f"the devices of {name} are accepted"]
