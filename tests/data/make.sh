#!/bin/sh
# Make a data directory of another version, and keep it: see README.md.
#   tests/data/make.sh CHECKOUT FORMAT PYTHON
# CHECKOUT is of the version to run, FORMAT 2 or later, PYTHON an interpreter with Relay's dependencies.
set -eu
checkout=$1 format=$2 python=$3
kept=$(cd "$(dirname "$0")" && pwd)/format-$format
mkdir -p "$kept"
work=$(mktemp -d)
cd "$work"
export RELAY_KNOWN_SERVERS="$work/known" RELAY_KEYS="$work/keys" RELAY_REGISTER=1 PYTHONPATH="$checkout"
relay() { "$python" -P -m relay.cli "$@"; }
touch out
"$python" -P -m relay.cli serve --bind 127.0.0.1:0 --workers 2 --data data --key-bits 2048 \
    --registration open > out 2> log &
server=$!
trap 'kill $server' EXIT
while ! grep -q relay:// out; do sleep 0.1; done
address=$(grep -o 'relay://[^ ]*' out | head -1)

seq -f 'build %g' 1 30 | relay send "$address" builds --name ci --accept-new
printf 'hello\n\n  two  spaces\nÜmläut 漢字 🎉\n' | relay send "$address" lobby --name alice
printf 'hi alice\nbye\n' | relay send "$address" lobby --name bob
relay room create "$address" den --name alice --kind private
relay room invite "$address" den bob --name alice
relay send "$address" den psst --name alice
relay send "$address" den here --name bob
relay room topic "$address" lobby 'all and sundry' --name alice
relay room ban "$address" lobby ci --name alice
if [ "$format" -ge 3 ]; then
    relay send "$address" talk 'what do you think?' --name bob
    "$python" -P - "$address" <<'END'
import asyncio, sys
from relay.client.aio import Client
from relay.client.events import Message

async def main() -> None:
    async with Client(sys.argv[1], name="alice") as alice:
        await alice.send("@bob", "one")
        await alice.send("@bob", "two")
        for text in ("oops", "gone"):
            await alice.send("talk", text)
        await alice.join("talk")
        page = await alice.history("talk", count=10)
        question, oops, gone = [one for one in page.entries if isinstance(one, Message)]
        await alice.send("talk", "indeed", reply_to=question)
        await alice.react(question, "+1")
        await alice.edit(oops, "mended")
        await alice.redact(gone, "a mistake")

asyncio.run(main())
END
    relay send "$address" @alice three --name bob
fi
if [ "$format" -ge 4 ]; then
    relay account set "$address" --name bob --writers known
    relay account block "$address" ci --name bob
    relay room enter "$address" lobby --name bob
fi
trap - EXIT
kill -TERM $server
wait $server
pack="tar --sort=name --owner=0 --group=0 --numeric-owner --exclude=./search -cJf"
$pack "$kept/data.tar.xz" -C data .
$pack "$kept/keys.tar.xz" -C keys .
rm -r "$work"
