"""Recomputes Relay's test vectors without a line of Relay, and without its crypto library.

Written from docs/protocol.md alone, section by section; read it beside that page. AES-GCM is
pycryptodome's, ML-KEM kyber-py's; RSA-OAEP, X25519, HKDF and msgpack are spelled out here.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

from Crypto.Cipher import AES
from Crypto.Signature import eddsa
from kyber_py.ml_kem import ML_KEM_768

HERE = Path(__file__).parent
Vector = dict[str, Any]


class Disagreement(AssertionError):
    """A stored value differs from what this decoder computes."""


def load(name: str) -> Vector:
    loaded: Vector = json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


def same(what: str, stored: str, computed: bytes | str) -> None:
    text = computed if isinstance(computed, str) else computed.hex()
    if stored != text:
        raise Disagreement(f"{what}: stored {stored[:40]}, computed {text[:40]}")


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# --- section 3: the four messages -----------------------------------------------------------------
class Reader:
    """Takes fields from a body."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def take(self, count: int) -> bytes:
        if count > len(self.body):
            raise Disagreement("a body is too short")
        value, self.body = self.body[:count], self.body[count:]
        return value

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def variable(self) -> bytes:
        return self.take(self.number(2))

    def end(self) -> None:
        if self.body:
            raise Disagreement("a body is too long")


def body_of(frame: bytes, kind: int) -> Reader:
    """Return the body of a frame: type u8, length u24, body."""
    if frame[0] != kind or int.from_bytes(frame[1:4], "big") != len(frame) - 4:
        raise Disagreement("a frame's header")
    return Reader(frame[4:])


def oaep_decode(key: Vector, ciphertext: bytes, label: bytes) -> bytes:
    """RSA-OAEP with SHA-256 and MGF1-SHA-256 (RFC 8017 section 7.1.2), by the textbook."""
    n, d = int(key["n"], 16), int(key["d"], 16)
    size = (n.bit_length() + 7) // 8
    padded = pow(int.from_bytes(ciphertext, "big"), d, n).to_bytes(size, "big")
    seed_masked, block_masked = padded[1:33], padded[33:]
    seed = xor(seed_masked, mgf1(block_masked, 32))
    block = xor(block_masked, mgf1(seed, len(block_masked)))
    rest = block[32:].lstrip(b"\0")
    if padded[0] or block[:32] != sha256(label) or rest[:1] != b"\1":
        raise Disagreement("an RSA-OAEP ciphertext")
    return rest[1:]


def mgf1(seed: bytes, length: int) -> bytes:
    blocks = (sha256(seed + counter.to_bytes(4, "big")) for counter in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def x25519(scalar: bytes, point: bytes) -> bytes:
    """RFC 7748 section 5: the Montgomery ladder."""
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little")
    k = k & ((1 << 254) - 8) | (1 << 254)
    u = int.from_bytes(point, "little") & ((1 << 255) - 1)
    x2, z2, x3, z3, swap = 1, 0, u, 1, 0
    for t in range(254, -1, -1):
        bit = k >> t & 1
        if swap ^ bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swap = bit
        a, b, c, d = x2 + z2, x2 - z2, x3 + z3, x3 - z3
        da, cb, aa, bb = d * a, c * b, a * a, b * b
        x3, z3 = (da + cb) ** 2 % p, u * (da - cb) ** 2 % p
        x2, z2 = aa * bb % p, (aa - bb) * (aa + 121665 * (aa - bb)) % p
    if swap:
        x2, z2 = x3, z3
    return (x2 * pow(z2, p - 2, p) % p).to_bytes(32, "little")


# --- section 4: key schedule ----------------------------------------------------------------------
def extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac.new(salt, ikm, hashlib.sha256).digest()


def label(secret: bytes, name: str, context: bytes, length: int) -> bytes:
    """L(s, label, ctx, n); n is at most 32 here, so one block of HKDF-Expand is enough."""
    full = b"relay1 " + name.encode()
    info = struct.pack(">HB", length, len(full)) + full + bytes((len(context),)) + context
    return hmac.new(secret, info + b"\1", hashlib.sha256).digest()[:length]


def check_handshake(vector: Vector, key: Vector) -> None:
    """Check every field, every secret and every intermediate value of one handshake."""
    inputs, schedule = vector["inputs"], vector["schedule"]
    f1, f2, f3, f4 = (bytes.fromhex(vector["frames"][f"f{n}"]) for n in (1, 2, 3, 4))

    hello = body_of(f1, 1)
    same("magic", hello.take(4).hex(), b"RLY1")
    same("versions, suite", hello.take(3).hex(), "010101")
    pow_bits = hello.number(1)
    server_random = hello.take(32)
    same("server_random", inputs["server_random"], server_random)
    spki = hello.variable()
    ext = hello.variable()
    same("ext", vector["ext"], ext)
    if ext and (ext[:2] != b"\1\x20" or len(ext) != 34):
        raise Disagreement("the id of a server")
    hello.end()
    fingerprint = base64.b32encode(sha256(spki)).decode().lower().rstrip("=")
    same("fingerprint", vector["fingerprint"], fingerprint)

    client = body_of(f2, 2)
    before_nonce = client.body[:1250]
    same("version, suite", client.take(2).hex(), "0101")
    same("client_random", inputs["client_random"], client.take(32))
    x25519_c, mlkem_ek = client.take(32), client.take(1184)
    nonce = client.take(8)
    work = sha256(b"relay/1 pow" + server_random + sha256(before_nonce) + nonce)
    if int.from_bytes(work, "big") >> (256 - pow_bits):
        raise Disagreement("proof of work")
    secret = oaep_decode(key, client.take(256), b"relay/1 session key")
    same("R", inputs["session_key"], secret)
    ticket = client.variable()
    same("ticket", inputs.get("ticket", ""), ticket)
    psk = bytes.fromhex(inputs.get("psk", ""))
    binder = client.take(32)
    t0 = sha256(f1 + f2[:-32])
    if ticket:
        expected = extract(label(extract(bytes(32), psk), "res binder", b"", 32), t0)
        same("binder", schedule["binder"], expected)
    else:
        expected = bytes(32)
    same("binder", binder.hex(), expected)
    client.end()

    finished = body_of(f3, 3)
    mode = finished.number(1)
    same("mode", str(vector["mode"]), str(mode))
    if mode > (1 if ticket else 0):
        raise Disagreement("a mode that was not offered")
    x25519_s, mlkem_ct = finished.take(32), finished.take(1088)
    server_confirm = finished.take(32)
    finished.end()
    client_finished = body_of(f4, 4)
    client_confirm = client_finished.take(32)
    client_finished.end()

    private = bytes.fromhex(inputs["x25519_c_private"])
    base = (9).to_bytes(32, "little")
    same("x25519_c", x25519_c.hex(), x25519(private, base))
    same("x25519_s", x25519_s.hex(), x25519(bytes.fromhex(inputs["x25519_s_private"]), base))
    x_shared = x25519(private, x25519_s)
    seed = bytes.fromhex(inputs["mlkem_seed"])
    ek, dk = ML_KEM_768.key_derive(seed)
    same("mlkem_ek", mlkem_ek.hex(), ek)
    m_shared = ML_KEM_768.decaps(dk, mlkem_ct)
    same("X25519 shared", schedule["x25519_shared"], x_shared)
    same("ML-KEM shared", schedule["mlkem_shared"], m_shared)

    t2, t3, t4 = sha256(f1 + f2 + f3[:-32]), sha256(f1 + f2 + f3), sha256(f1 + f2 + f3 + f4)
    same("T0", schedule["T0"], t0)
    same("T2", schedule["T2"], t2)
    same("T3", schedule["T3"], t3)
    same("T4", schedule["T4"], t4)
    es = extract(bytes(32), psk if mode else bytes(32))
    same("ES", schedule["ES"], es)
    if mode:
        secret = bytes(32)
    hs = extract(label(es, "derived", sha256(b""), 32), secret + x_shared + m_shared)
    same("HS", schedule["HS"], hs)
    same("server_confirm", server_confirm.hex(), extract(label(hs, "s confirm", t2, 32), t2))
    same("server_confirm", schedule["server_confirm"], server_confirm)
    same("client_confirm", client_confirm.hex(), extract(label(hs, "c confirm", t3, 32), t3))
    same("client_confirm", schedule["client_confirm"], client_confirm)
    same("c_ap_0", schedule["c_ap_0"], label(hs, "c ap", t3, 32))
    same("s_ap_0", schedule["s_ap_0"], label(hs, "s ap", t3, 32))
    exporter = label(hs, "exporter", t3, 32)
    same("EXP", schedule["EXP"], exporter)
    same("RMS", schedule["RMS"], label(hs, "resumption", t4, 32))
    binding = label(exporter, "client login", sha256(spki), 32)
    same("login binding", schedule["login_binding"], binding)


def check_ticket(first: Vector, resumed: Vector) -> None:
    """Check section 5, "Ticket": its secret follows from the connection that it came on."""
    rms = bytes.fromhex(first["schedule"]["RMS"])
    same("PSK", resumed["inputs"]["psk"], label(rms, "ticket", bytes(8), 32))


def check_next_key(vector: Vector, key: Vector) -> None:
    """Check section 6.7."""
    for one in vector["proofs"]:
        secret = oaep_decode(key, bytes.fromhex(one["challenge"]), b"relay/1 next key")
        same("the secret of a challenge", one["secret"], secret)
        hashes = bytes.fromhex(one["spki_hash"] + one["next_spki_hash"])
        same("a proof", one["proof"], extract(secret, b"relay/1 next key\0" + hashes))


# --- section 5: records ---------------------------------------------------------------------------
def check_records(vector: Vector) -> None:
    """Open every record, in order; follow key updates; compare keys, sequences and contents."""
    for direction in vector["directions"]:
        secret = bytes.fromhex(direction["ap_0"])
        for generation in direction["generations"]:
            same("ap", generation["ap"], secret)
            key, iv = label(secret, "key", b"", 32), label(secret, "iv", b"", 12)
            same("key", generation["key"], key)
            same("iv", generation["iv"], iv)
            for sequence, record in enumerate(generation["records"]):
                check_record(record, key, iv, sequence)
            updates = [r["type"] == 3 for r in generation["records"]]
            last = generation is direction["generations"][-1]
            if any(updates[:-1]) or updates[-1] is last:
                raise Disagreement("a key update is the last record of its generation")
            secret = label(secret, "traffic upd", b"", 32)


def check_record(record: Vector, key: bytes, iv: bytes, sequence: int) -> None:
    frame = bytes.fromhex(record["frame"])
    body = body_of(frame, 0x10).body
    nonce = xor(iv, bytes(4) + sequence.to_bytes(8, "big"))
    same("nonce", record["nonce"], nonce)
    cipher = AES.new(key, AES.MODE_GCM, nonce=nonce)
    cipher.update(frame[:4])
    inner = cipher.decrypt_and_verify(body[:-16], body[-16:])
    stripped = inner.rstrip(b"\0")
    if stripped[-1] != record["type"]:
        raise Disagreement("the type of a record")
    same("content", record["content"], stripped[:-1])
    size = len(stripped)
    steps = [64, 128, 256, 512, 1024]
    padded = next((s for s in steps if size <= s), -(-size // 1024) * 1024)
    if len(inner) != padded:
        raise Disagreement("the padding of a record")


# --- section 6: envelopes -------------------------------------------------------------------------
def check_envelopes(vector: Vector) -> None:
    """Decode each one's bytes, and encode the value again to the same bytes."""
    for case in vector["envelopes"]:
        data = bytes.fromhex(case["packed"])
        value, rest = decode(data)
        if rest:
            raise Disagreement("bytes after an envelope")
        if as_json(value) != [case["op"], *case["fields"]]:
            raise Disagreement(f"{case['name']}: {as_json(value)}")
        same(case["name"], case["packed"], encode(value))


def as_json(value: object) -> object:
    """Section 9: bytes as ``{"bin": hex}``, numbers from 2^53 on as ``{"int": decimal}``."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, int) and value >= 2**53:
        return {"int": str(value)}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def decode(data: bytes) -> tuple[Any, bytes]:
    """Return one msgpack value of the few types that the protocol allows, and the bytes
    after it.
    """
    first, rest = data[0], data[1:]
    if first < 0x80:
        return first, rest
    if 0x90 <= first <= 0x9F:
        return decode_array(first & 0x0F, rest)
    if 0xA0 <= first <= 0xBF:
        return decode_text(first & 0x1F, rest)
    if first in (0xC0, 0xC2, 0xC3):
        return {0xC0: None, 0xC2: False, 0xC3: True}[first], rest
    families = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD9: 1, 0xDA: 2,
                0xDC: 2}  # fmt: skip
    if first not in families:
        raise Disagreement(f"msgpack type {first:#x} is not allowed")
    width = families[first]
    number, rest = int.from_bytes(rest[:width], "big"), rest[width:]
    if first <= 0xC6:
        return rest[:number], rest[number:]
    if first <= 0xCF:
        return number, rest
    return decode_array(number, rest) if first == 0xDC else decode_text(number, rest)


def decode_array(count: int, data: bytes) -> tuple[list[Any], bytes]:
    items = []
    for _ in range(count):
        item, data = decode(data)
        items.append(item)
    return items, data


def decode_text(length: int, data: bytes) -> tuple[str, bytes]:
    return data[:length].decode("utf-8"), data[length:]


def encode(value: object) -> bytes:
    """The shortest form of each value, as a sender writes it."""
    if value is None or value is True or value is False:
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        if value < 0x80:
            return bytes((value,))
        width = next(w for w in (1, 2, 4, 8) if value < 1 << 8 * w)
        return bytes((0xCC + (1, 2, 4, 8).index(width),)) + value.to_bytes(width, "big")
    if isinstance(value, bytes):
        return head(len(value), {1: 0xC4, 2: 0xC5, 4: 0xC6}) + value
    if isinstance(value, str):
        text = value.encode("utf-8")
        short = len(text) < 32
        return (bytes((0xA0 | len(text),)) if short else head(len(text), {1: 0xD9, 2: 0xDA})) + text
    assert isinstance(value, list)
    short = len(value) < 16
    start = bytes((0x90 | len(value),)) if short else head(len(value), {2: 0xDC})
    return start + b"".join(map(encode, value))


def head(length: int, widths: dict[int, int]) -> bytes:
    width = next(w for w in widths if length < 1 << 8 * w)
    return bytes((widths[width],)) + length.to_bytes(width, "big")


def check_producers(vector: Vector) -> None:
    """Check section 6.3."""
    for one in vector["producers"]:
        name = one["name"].encode("ascii")
        content = b"relay/1 producer" + bytes.fromhex(one["root"]) + bytes((len(name),)) + name
        computed = sha256(content + bytes.fromhex(one["secret"]))[:16]
        same(f"the producer of {one['name']}", one["producer"], computed)


def verified(key: bytes, signature: bytes, message: bytes) -> bool:
    """Ed25519 (RFC 8032)."""
    try:
        eddsa.new(eddsa.import_public_key(key), "rfc8032").verify(message, signature)
    except ValueError:
        return False
    return True


def check_accounts(vector: Vector) -> None:
    """Check sections 6.1, 6.5 and 6.6."""
    for login in vector["logins"]:
        handshake = load("handshake")["handshakes"][0]
        same(
            "the binding of a login", login["login_binding"], handshake["schedule"]["login_binding"]
        )
        key, name = bytes.fromhex(login["key"]), login["name"].encode("ascii")
        message = b"\x20" * 64 + b"relay/1 client login\0" + bytes((login["operation"],))
        message += bytes.fromhex(login["login_binding"]) + bytes.fromhex(login["spki_hash"]) + key
        message += bytes((len(name),)) + name
        same("what a login signs", login["signed"], message)
        if not verified(key, bytes.fromhex(login["signature"]), message):
            raise Disagreement("a login's signature is wrong")
    for chain in vector["chains"]:
        check_chain(chain)
    for text in vector["refused_keys"]:
        y = int.from_bytes(bytes.fromhex(text), "little") & ((1 << 255) - 1)
        if y < 2**255 - 19 and y not in SMALL_ORDER_Y:
            raise Disagreement(f"{text} is a good key")
    for one in vector["invitations"]:
        token = base64.b32decode(one["text"].upper() + "====")
        same("an invitation's token", one["token"], token)
        digest = sha256(b"relay/1 invitation" + token)
        same("an invitation's hash", one["hash"], digest)
        same("an invitation's log", one["log"], "!" + digest[:16].hex())
    for one in vector["look_alikes"]:
        bones = one["name"].replace("0", "o").replace("1", "l").replace("i", "l")
        bones = bones.replace("_", "").replace("-", "").replace("rn", "m")
        same("a skeleton", one["skeleton"], bones)
        digest = hashlib.blake2b(f"@{bones}".encode(), digest_size=8).digest()
        same("a partition", str(one["partition"]), str(int.from_bytes(digest, "big") % 16))


SMALL_ORDER_Y = {
    0, 1, 2**255 - 20,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
}  # fmt: skip


def check_chain(chain: Vector) -> None:
    """Check section 6.6: every rule of it."""
    devices: list[bytes] = []
    removed: list[bytes] = []
    previous, nonce = bytes(32), b""
    for index, link in enumerate(chain["links"]):
        packed = bytes.fromhex(link["packed"])
        reader = Reader(packed)
        start = reader.take(len(b"relay/1 device link\0") + 2)
        same(
            "the start of a link", start.hex(), b"relay/1 device link\0\1" + bytes((link["kind"],))
        )
        same("a link's server", chain["server_id"], reader.take(32))
        same("a link's name", chain["name"], reader.take(reader.number(1)).decode("ascii"))
        nonce = nonce or reader.body[:16]
        same("a link's nonce", nonce.hex(), reader.take(16))
        same("a link's index", str(reader.number(2)), str(index))
        same("the link before", previous.hex(), reader.take(32))
        subject, signer = (reader.take(33) for _ in range(2))
        if subject[0] != 1 or signer[0] != 1:
            raise Disagreement("a key of another type")
        subject, signer = subject[1:], signer[1:]
        signed = packed[: len(packed) - len(reader.body)]
        signatures = [reader.body[:64], reader.body[64:]]
        if index and signer not in devices:
            raise Disagreement("signed by a stranger")
        if not verified(signer, signatures[0], signed):
            raise Disagreement("a link's first signature is wrong")
        if link["kind"] == 2 and not verified(subject, signatures[1], signed):
            raise Disagreement("a link's second signature is wrong")
        if link["kind"] == 3:
            devices.remove(subject)
            removed.append(subject)
        else:
            devices.append(subject)
        previous = sha256(packed)
        same("a link's hash", link["hash"], previous)
        if index == 0:
            same("the root", chain["root"], previous)
    same("the head", chain["head"], previous)
    same("the devices", "".join(chain["devices"]), b"".join(sorted(devices)))
    same("the removed ones", "".join(chain["removed"]), b"".join(sorted(removed)))
    for key, key_id in chain["key_ids"].items():
        same("a key id", key_id, sha256(bytes.fromhex(key))[:16])


def check_rooms(vector: Vector) -> None:
    """Check that events and requests are as in the vectors, and that the events give the state."""
    version = 0
    people: dict[str, dict[str, Any]] = {}
    state: dict[str, Any] = {
        "kind": 0, "listed": True, "title": "", "topic": "", "closed": False,
    }  # fmt: skip
    for case in (*vector["events"], *vector["requests"]):
        packed = bytes.fromhex(case.get("body") or case["packed"])
        value, rest = decode(packed)
        fields = [
            one.hex() if isinstance(one, bytes)
            else str(one) if type(one) is int and one >= 2**53 else one
            for one in value
        ]  # fmt: skip
        if rest or fields != case["fields"]:
            raise Disagreement(f"{case['name']}: {fields}")
    for event in vector["events"]:
        text = f"relay/1 room {vector['log']} {version}".encode()
        same("producer", event["producer"], sha256(text)[:16])
        version = event["seq"]
        number, *rest = event["fields"]
        who = rest[0] if number in (5, 6, 7, 8, 9, 10) else event["sender"]
        nothing = {"role": 0, "muted": False, "banned": False}
        person = dict(people.get(who, nothing))
        if number == 1:
            state["kind"], state["listed"] = rest[:2]
            person["role"] = 4
        elif number in (2, 3):
            state["topic" if number == 2 else "title"] = rest[0]
        elif number == 4:
            state["kind"], state["listed"] = rest
        elif number == 5:
            person["role"] = rest[2]
        elif number in (6, 12):
            person["role"] = 1 if number == 6 else max(2, person["role"])
        elif number in (7, 13):
            person["role"] = 0
        elif number == 8:
            person = {"role": 0, "muted": False, "banned": True}
        elif number == 9:
            person["muted"] = True
        elif number == 10:
            person["muted"] = person["banned"] = False
        elif number == 11:
            state["closed"] = rest[0]
        people[who] = person
    state["people"] = {who: one for who, one in sorted(people.items()) if any(one.values())}
    if state != vector["state"]:
        raise Disagreement(f"the state of a room: {state}")


def check_all() -> int:
    """Check every file; return the number of handshakes. Raises Disagreement."""
    handshakes = load("handshake")["handshakes"]
    for handshake in handshakes:
        check_handshake(handshake, load("server_key"))
    for handshake in handshakes[2:4]:
        check_ticket(handshakes[0], handshake)
    for name in ("records", "key_update"):
        check_records(load(name))
    check_next_key(load("next_key"), load("server_key"))
    check_producers(load("producers"))
    check_accounts(load("accounts"))
    check_rooms(load("rooms"))
    check_envelopes(load("envelopes"))
    return len(handshakes)


if __name__ == "__main__":
    print(f"{check_all()} handshakes, records, key updates and envelopes agree")
