"""Settings: precedence, sources, and error messages."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from relay.cli.server_commands.serve import serve
from relay.configuration import ConfigurationError, load
from relay.declarations import SHOWN_CHARS_MAX, Declaration, as_toml, declarations
from relay.errors import UsageError
from relay.settings import Settings
from relay.settings_file import template
from relay.settings_table import markdown
from tests.support.cluster import ROOT


def test_precedence(tmp_path: Path) -> None:
    """Flag, then environment, then file, then a convention, then the default; the source is
    reported.
    """
    file = tmp_path / "relay.toml"
    file.write_text(
        '[server]\nworkers = 3\nbind = ["127.0.0.1:1", "[::1]:2"]\nkey_bits = 4096\n'
        "graceful_timeout_s = 5\n"
    )
    loaded = load(
        {"server.workers": "5", "server.key_bits": None, "server.bind": ()},
        {
            "WEB_CONCURRENCY": "2",
            "RELAY_SERVER__WORKERS": "4",
            "RELAY_SERVER__KEY_BITS": "2048",
            "STATE_DIRECTORY": "/var/lib/relay:/other",
            "RELAY_KNOWN_SERVERS": "is the client's",
        },
        file,
    )
    server = loaded.settings.server
    assert (server.workers, server.key_bits) == (5, 2048)
    assert server.bind == ("127.0.0.1:1", "[::1]:2")
    assert server.graceful_timeout_s == 5.0
    assert loaded.settings.store.data == "/var/lib/relay"
    assert {path: loaded.sources[path] for path in ("server.workers", "server.key_bits")} == {
        "server.workers": "--workers",
        "server.key_bits": "RELAY_SERVER__KEY_BITS",
    }
    assert loaded.sources["server.bind"] == f"{file}:3"
    assert loaded.sources["store.data"] == "STATE_DIRECTORY"
    assert loaded.sources["log.level"] == "default"


def test_web_concurrency_is_a_default(tmp_path: Path) -> None:
    assert load({}, {"WEB_CONCURRENCY": "7"}, None).settings.server.workers == 7
    file = tmp_path / "relay.toml"
    file.write_text("[server]\nworkers = 3\n")
    assert load({}, {"WEB_CONCURRENCY": "7"}, file).settings.server.workers == 3


EVERY_VARIABLE = sorted(declaration.variable for declaration in declarations())


@pytest.mark.parametrize("empty", ["", " ", "\t"])
@pytest.mark.parametrize("variable", [*EVERY_VARIABLE, "WEB_CONCURRENCY", "STATE_DIRECTORY"])
def test_an_empty_variable_counts_as_unset(variable: str, empty: str) -> None:
    """Never as a path, a number or a list."""
    environment = {key: os.environ[key] for key in ("HOME",) if key in os.environ}
    plain = load({}, environment, None).settings
    assert load({}, environment | {variable: empty}, None).settings == plain


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize("declaration", declarations(), ids=lambda d: d.path)
def test_an_empty_flag_or_entry_of_the_file_is_an_error(
    tmp_path: Path, declaration: Declaration, empty: str
) -> None:
    """Except for settings where an empty value has a meaning."""
    file = tmp_path / "relay.toml"
    file.write_text(f"[{declaration.section}]\n{declaration.key} = {json.dumps(empty)}\n")
    flags: dict[str, object] = {declaration.path: empty}
    given: tuple[dict[str, object], dict[str, str], Path | None]
    for given in ((flags, {}, None), ({}, {}, file)):
        if declaration.rules.get("path") == "may be empty":
            assert load(*given).settings == load({}, {}, None).settings
        else:
            with pytest.raises(UsageError, match=re.escape(f"{declaration.path}: expected")):
                load(*given)


@pytest.mark.parametrize("path", ["store.data", "server.runtime"])
def test_a_tilde_is_expanded_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """From every source."""
    monkeypatch.setenv("HOME", "/home/anna")
    section, key = path.split(".")
    file = tmp_path / "relay.toml"
    file.write_text(f'[{section}]\n{key} = "~/x"\n')
    variable = f"RELAY_{section}__{key}".upper()
    for loaded in (
        load({path: "~/x"}, {}, None),
        load({}, {variable: "~/x"}, None),
        load({}, {}, file),
    ):
        assert getattr(getattr(loaded.settings, section), key) == "/home/anna/x"
    with pytest.raises(UsageError, match=f"{variable}: {path}: cannot expand '~no-such-user/x'"):
        load({}, {variable: "~no-such-user/x"}, None)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("RELAY_SERVER_WORKERS", "RELAY_SERVER__WORKERS"),
        ("RELAY_WORKERS", "RELAY_SERVER__WORKERS"),
        ("RELAY__SERVER__WORKERS", "RELAY_SERVER__WORKERS"),
        ("RELAY_SERVER__MAXCONNECTIONS", "RELAY_SERVER__MAX_CONNECTIONS"),
        ("RELAY_SERVER_WROKERS", "RELAY_SERVER__WORKERS"),
        ("RELAY_STORE_DATA", "RELAY_STORE__DATA"),
        ("RELAY_STORE__DATE", "RELAY_STORE__DATA"),
        ("RELAY_LOG_LEVEL", "RELAY_LOG__LEVEL"),
        ("RELAY_CONFG", "RELAY_CONFIG"),
    ],
)
def test_a_variable_that_nearly_is_a_setting(variable: str, meant: str) -> None:
    """Otherwise it would silently have no effect."""
    with pytest.raises(UsageError, match=f"{variable}: no such setting; did you mean {meant}\\?"):
        load({}, {variable: "1"}, None)


def test_a_variable_that_is_ours_but_no_setting() -> None:
    """There is no similar name to suggest, but it is an error as well."""
    with pytest.raises(
        UsageError, match=r'RELAY_SERVER__9QX7Z4: no such setting; "relay config init" prints'
    ):
        load({}, {"RELAY_SERVER__9QX7Z4": "1"}, None)


@pytest.mark.parametrize(
    "service", ["RELAY", "RELAY_SERVER", "RELAY_STORE", "RELAY_LOG", "RELAY_X"]
)
def test_what_orchestrators_define_is_left_alone(service: str) -> None:
    """For a service of Kubernetes or a link of Docker with our name."""
    environment = {
        f"{service}_SERVICE_HOST": "10.0.0.1",
        f"{service}_SERVICE_PORT": "7475",
        f"{service}_SERVICE_PORT_CHAT": "7475",
        f"{service}_PORT": "tcp://10.0.0.1:7475",
        f"{service}_PORT_7475_TCP": "tcp://10.0.0.1:7475",
        f"{service}_PORT_7475_TCP_PROTO": "tcp",
        f"{service}_PORT_7475_TCP_PORT": "7475",
        f"{service}_PORT_7475_TCP_ADDR": "10.0.0.1",
        "RELAY_NAME": "/app/relay",
        "RELAY_ENV_PATH": "/bin",
        "RELAY_ENV_RELAY_STORE__DATA": "/data",
        "RELAY_VERSION": "1",
        "RELAY_HOME": "/opt/relay",
        "RELAY_IMAGE_TAG": "latest",
        "RELAY_DEBUG": "1",
        "RELAY_CONFIG": "",
    }
    assert load({}, environment, None).settings == load({}, {}, None).settings


def test_errors_name_the_flag_that_was_typed() -> None:
    """For each setting that has one: the flag of ``relay serve`` has the same name."""
    options = {option: param.name for param in serve.params for option in param.opts}
    flags = {d.path: d.flag for d in declarations() if d.flag in options}
    assert flags["log.level"] == "--log-level"
    assert flags["server.graceful_timeout_s"] == "--graceful-timeout"
    others = {"config", "check_config", "print_config", "help", "new_identity"}
    settings_of_serve = set(options.values()) - others
    assert len(flags) == len(settings_of_serve)
    with pytest.raises(UsageError, match=r"^--log-level: log\.level: expected one of debug"):
        load({"log.level": "loud"}, {}, None)


def test_lists_in_the_environment() -> None:
    loaded = load({}, {"RELAY_SERVER__BIND": "127.0.0.1:1, [::1]:2"}, None)
    assert loaded.settings.server.bind == ("127.0.0.1:1", "[::1]:2")


@pytest.mark.parametrize(
    ("flags", "environment", "message"),
    [
        (
            {},
            {"RELAY_SERVER__WORKER": "1"},
            "RELAY_SERVER__WORKER: no such setting; did you mean RELAY_SERVER__WORKERS?",
        ),
        (
            {},
            {"RELAY_SERVER__WORKERS": "many"},
            'WORKERS: server.workers: expected a whole number from 0 to 256, not "many"',
        ),
        ({}, {"WEB_CONCURRENCY": "-1"}, "WEB_CONCURRENCY: server.workers: expected a whole number"),
        (
            {},
            {"RELAY_SERVER__GRACEFUL_TIMEOUT_S": "nan"},
            'server.graceful_timeout_s: expected a number from 0 to 3600, not "nan"',
        ),
        ({"server.bind": ("7475",)}, {}, "--bind: server.bind: expected HOST:PORT with a"),
        ({}, {"RELAY_SERVER__BIND": " , "}, "server.bind: expected a list of one or more texts"),
        (
            {},
            {"RELAY_STORE__DURABILITY": "none"},
            'store.durability: expected one of process, power, not "none"',
        ),
        ({"server.graceful_timeout_s": "x"}, {}, "--graceful-timeout: server.graceful_timeout_s:"),
        ({}, {"RELAY_SERVER__WORKERS": "\udcff"}, "server.workers: expected a whole number"),
        ({}, {"RELAY_LOG__LEVEL": "\udcff"}, "log.level: expected one of debug"),
        (
            {"server.workers": "9" * 1000},
            {},
            f'a whole number from 0 to 256, not "{"9" * (SHOWN_CHARS_MAX - 1)}...',
        ),
    ],
)
def test_mistakes(flags: dict[str, object], environment: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(flags, environment, None)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[server]\nwrokers = 1\n",
            "server.wrokers: no such setting; did you mean server.worker",
        ),
        ("[sever]\nworkers = 1\n", "sever: no such section; did you mean server?"),
        ("[server]\ndurability = 'power'\n", "did you mean store.durability?"),
        ("workers = 1\n", "workers: no such section; write workers below [server]"),
        ("[server]\nqx7z = 1\n", 'server.qx7z: no such setting; "relay config init" prints all'),
        ('[server]\n"a\\nb" = 1\n', 'server.a\\nb": no such setting'),
        ("[server]\nworkers = '1x'\n", "server.workers: expected a whole"),
        ("[server]\nworkers = true\n", "a whole number from 0 to 256, not true"),
        ("[server]\nruntime = 2026-01-02\n", 'server.runtime: expected text, not "2026-01-02"'),
        ("server = 3\n", "server is a section: write [server], once, and below it"),
        ("[[server]]\nworkers = 1\n", "server is a section: write [server], once"),
        ("[server]\nworkers = \n", "relay.toml:2: is not valid TOML, column 11: Invalid value"),
        ("[server]\nbind = [1]\n", "server.bind: expected a list of one or more texts, not [1]"),
        ("a = " + "[" * 100_000, "is not valid TOML"),
        (f"[server]\nworkers = {'9' * 5000}\n", "is not valid TOML"),
        (f"[server]\nworkers = 0x{'f' * 50_000}\n", "server.workers: expected a whole number"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load({}, {}, file)
    assert re.match(rf"{file}(:\d)?: ", str(caught.value))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("workers", '"2"', 'expected a whole number from 0 to 256: write 2, not "2"'),
        ("workers", '"1e2"', 'expected a whole number from 0 to 256: write 100, not "1e2"'),
        ("workers", '"auto"', 'expected a whole number from 0 to 256, not "auto"'),
        ("workers", "2.0", "expected a whole number from 0 to 256: write 2, not 2.0"),
        ("workers", "2.5", "expected a whole number from 0 to 256, not 2.5"),
        ("workers", "{ a = 1 }", 'expected a whole number from 0 to 256, not {"a": 1}'),
        ("keepalive_s", '"30"', 'expected a number from 0.1 to 3600: write 30.0, not "30"'),
        ("keepalive_s", "nan", "expected a number from 0.1 to 3600, not NaN"),
        ("keepalive_s", "false", "expected a number from 0.1 to 3600, not false"),
        ("spare_worker", "1", "expected true or false: write true, not 1"),
        ("spare_worker", '"No"', 'expected true or false: write false, not "No"'),
        ("spare_worker", '"true"', 'expected true or false: write true, not "true"'),
        ("spare_worker", "[true]", "expected true or false, not [true]"),
        ("spare_worker", f"0x{'f' * 50_000}", "expected true or false, not what is given"),
        (
            "bind",
            '"[::1]:1, ::1"',
            'expected a list of one or more texts: write ["[::1]:1", "::1"], not "[::1]:1, ::1"',
        ),
        ("bind", '[["[::1]:1"]]', 'expected a list of one or more texts, not [["[::1]:1"]]'),
        ("user", "1000", "expected the name or number of a user, not 1000"),
        ("key_passphrase", "[]", "expected text, not []"),
    ],
)
def test_a_file_has_types(tmp_path: Path, key: str, value: str, message: str) -> None:
    """Nothing of another type is taken for the right one, and the right one is told if known."""
    file = tmp_path / "relay.toml"
    file.write_text(f"[server]\n\n{key} = {value}\n")
    with pytest.raises(ConfigurationError) as caught:
        load({}, {}, file)
    assert caught.value.problems == [f"{file}:3: server.{key}: {message}"]


@pytest.mark.parametrize("declaration", declarations(), ids=lambda d: d.path)
def test_no_setting_of_a_file_takes_its_value_as_another_type(
    tmp_path: Path, declaration: Declaration
) -> None:
    """The default as text, as a table and in a list, and for a text a number."""
    default = as_toml(declaration.default)
    wrong = [f"{{ a = {default} }}", f"[[{default}]]"]
    if isinstance(declaration.default, str):
        wrong.append("1000")
    else:
        wrong.append(json.dumps(default.strip('[]"')))
    file = tmp_path / "relay.toml"
    for value in wrong:
        file.write_text(f"[{declaration.section}]\n{declaration.key} = {value}\n")
        with pytest.raises(ConfigurationError, match=rf":2: {declaration.path}: expected") as told:
            load({}, {}, file)
        assert len(told.value.problems) == 1


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Each with its source, and in the file with its line."""
    file = tmp_path / "relay.toml"
    file.write_text(
        "# nothing here\n[server]\nwrokers = 1\nbind = [\n  'nowhere',\n]\n\n"
        "[log]\nlevel = 'loud'\n[sever]\n"
    )
    environment = {"RELAY_SERVER_WORKERS": "2", "RELAY_LIMITS__UNAUTHENTICATED": "2"}
    with pytest.raises(ConfigurationError) as caught:
        load({"server.workers": "x"}, environment, file)
    assert caught.value.problems == [
        f"{file}:3: server.wrokers: no such setting; did you mean server.workers?",
        (
            f"{file}:4: server.bind: expected HOST:PORT with a port from 0 to 65535 or "
            'unix:PATH, not "nowhere"'
        ),
        f'{file}:9: log.level: expected one of debug, info, warning, error, not "loud"',
        f"{file}:10: sever: no such section; did you mean server?",
        "environment: RELAY_SERVER_WORKERS: no such setting; did you mean RELAY_SERVER__WORKERS?",
        (
            "RELAY_LIMITS__UNAUTHENTICATED: limits.unauthenticated: expected a whole number from"
            ' 16 to 100000, not "2"'
        ),
        '--workers: server.workers: expected a whole number from 0 to 256, not "x"',
    ]


def test_each_wrong_item_of_a_list_is_told(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(
        '[server]\nbind = ["here", "127.0.0.1:7475", "1.2.3.4:99999"]\n'
        'proxies = ["10.0.0.0/99", "x"]\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        load({}, {}, file)
    assert [re.sub(r"expected .*, not", "not", text) for text in caught.value.problems] == [
        f'{file}:2: server.bind: not "here"',
        f'{file}:2: server.bind: not "1.2.3.4:99999"',
        f'{file}:3: server.proxies: not "10.0.0.0/99"',
        f'{file}:3: server.proxies: not "x"',
    ]


def test_a_byte_order_mark(tmp_path: Path) -> None:
    """Windows editors write one, and end lines with CR LF."""
    file = tmp_path / "relay.toml"
    file.write_bytes(b"\xef\xbb\xbf[server]\r\nworkers = 2\r\n")
    assert load({}, {}, file).settings.server.workers == 2


def test_the_template_has_every_setting_with_its_default(tmp_path: Path) -> None:
    """Unchanged it has no effect, and neither does it with every "#" before a key removed."""
    file = tmp_path / "relay.toml"
    file.write_text(template())
    assert load({}, {}, file) == load({}, {}, None)
    file.write_text(re.sub(r"^#(?=\w+ = )", "", template(), flags=re.MULTILINE))
    loaded = load({"store.data": load({}, {}, None).settings.store.data}, {}, file)
    assert loaded.settings == load({}, {}, None).settings
    assert all(
        source.startswith(f"{file}:") for source in set(loaded.sources.values()) - {"--data"}
    )


def test_no_setting_holds_a_secret() -> None:
    """A value is shown, logged, and in the environment of children: a secret is read from a
    file.
    """
    secret = re.compile(r"password|passphrase|secret|token|credential|private")
    assert [d.path for d in declarations() if secret.search(d.key) and "path" not in d.rules] == []


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load({}, {}, tmp_path / "missing")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load({}, {}, tmp_path / "binary")


def test_a_file_without_end() -> None:
    """Its beginning is read, and no more."""
    with pytest.raises(ConfigurationError, match="/dev/zero: cannot be read: it is longer than"):
        load({}, {}, Path("/dev/zero"))


def test_every_setting_is_declared_well() -> None:
    """Each has a reason, a variable that sets it, and a default of its own type."""
    paths = set()
    for declaration in declarations():
        paths.add(declaration.path)
        assert declaration.why.endswith(".")
        text = as_toml(declaration.default)
        section = tomllib.loads(f"[{declaration.section}]\n{declaration.key} = {text}\n")
        value = section[declaration.section][declaration.key]
        given = ",".join(value) if isinstance(value, list) else str(value)
        loaded = load({}, {declaration.variable: given}, None)
        assert loaded.sources[declaration.path] == declaration.variable
        assert loaded.settings == load({}, {}, None).settings
    assert len(paths) == sum(
        len(getattr(Settings(), name).__struct_fields__) for name in Settings().__struct_fields__
    )
    assert "server.workers" in paths


def test_the_page_is_up_to_date() -> None:
    page = ROOT / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == markdown()


def test_the_data_directory_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/not/asked")  # the given environment counts
    assert load({}, {}, None).settings.store.data.endswith("relay")


@pytest.mark.parametrize("declaration", declarations(), ids=lambda d: d.path)
def test_a_long_mistake_is_cut(declaration: Declaration) -> None:
    """Whatever check finds it: the line stays readable."""
    with pytest.raises(UsageError) as caught:
        load({}, {declaration.variable: "~" + 3000 * "x"}, None)
    assert len(str(caught.value)) < 500
