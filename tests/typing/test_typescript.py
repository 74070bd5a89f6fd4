"""What is emitted for TypeScript is accepted by its compiler with the real clients, and refuses what it should."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from oplata.rpc.__main__ import main
from oplata.rpc.typescript import emit
from oplata.rpc.typescript.preamble import Client
from oplata.rpc.wire import Transformer
from tests.rpc_conformance.processes import HERE as PACKAGES
from tests.rpc_conformance.processes import node_packages
from tests.typing.shop import shop_router

CHECKS = Path(__file__).parent
OPTIONS = {
    "strict": True,
    "noEmit": True,
    "skipLibCheck": True,
    "module": "esnext",
    "moduleResolution": "bundler",
    "target": "es2022",
    "lib": ["es2022", "dom", "dom.iterable", "esnext"],
    "types": [],
}


@pytest.fixture(scope="module", autouse=True)
def _packages() -> None:
    node_packages()


@pytest.fixture
def project(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory from which that client's packages are found."""
    with tempfile.TemporaryDirectory(prefix=".typing-", dir=PACKAGES / "clients" / request.param) as directory:
        yield Path(directory)


def compiled(project: Path, check: str, client: Client, transformer: Transformer, compiler: str) -> str:
    """The compiler's complaints; nothing if it has none."""
    has_dates = transformer == "superjson"
    placeholder = "{ serialize: (value: any) => value, deserialize: (value: any) => value }"
    text = (
        (CHECKS / check)
        .read_text(encoding="utf-8")
        .replace("INSTANT_VALUE", "new Date()" if has_dates else "''")
        .replace("INSTANT", "Date" if has_dates else "string")
    )
    if has_dates:
        given = f"transformer: {placeholder}"
        text = text.replace("/* TRANSFORMER */", f"{given}," if client == "v10" else f", {given}")
    (project / "check.ts").write_text(text, encoding="utf-8")
    emitted = emit(shop_router(), client=client, transformer=transformer)
    (project / "app-router.ts").write_text(emitted, encoding="utf-8")
    config = {"compilerOptions": OPTIONS, "files": ["check.ts"]}
    (project / "tsconfig.json").write_text(json.dumps(config), encoding="utf-8")
    command = ["node", str(PACKAGES / "node_modules" / compiler / "bin" / "tsc"), "-p", "."]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("transformer", ["none", "superjson"])
@pytest.mark.parametrize(
    ("project", "check", "client", "compiler"),
    [
        ("11.0", "check.v11.ts", "v11", "typescript-5"),
        ("11.13", "check.v11.ts", "v11", "typescript-7"),
        ("11.18", "check.v11.ts", "v11", "typescript-7"),
        ("11.25", "check.v11.ts", "v11", "typescript-5"),
        ("11.25", "check.v11.ts", "v11", "typescript-7"),
        ("10.45", "check.v10.ts", "v10", "typescript-5"),
        ("10.45", "check.v10.ts", "v10", "typescript-7"),
    ],
    indirect=["project"],
)
def test_the_compiler_accepts_the_router(
    project: Path, check: str, client: Client, transformer: Transformer, compiler: str
) -> None:
    assert compiled(project, check, client, transformer, compiler) == ""


@pytest.mark.parametrize("project", ["react"], indirect=True)
def test_the_packages_for_react_accept_the_router(project: Path) -> None:
    assert compiled(project, "check.react.ts", "v11", "none", "typescript-7") == ""


def test_the_same_router_gives_the_same_text() -> None:
    assert emit(shop_router()) == emit(shop_router())


def test_documentation_is_carried_over_and_cannot_end_its_comment() -> None:
    text = emit(shop_router())
    assert (
        "    /**\n     * Finds one order.\n     *\n     * It is null where there is none.\n     */\n    byId:" in text
    )
    assert "What somebody wants. *\u200b/ is no end" in text
    assert "  /** Whatever the customer wrote. */\n  note:" in text


def test_a_name_that_the_file_uses_itself_is_numbered() -> None:
    assert "export interface Config2 {" in emit(shop_router())


def test_the_command_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "app-router.ts"
    target = "tests.typing.shop:shop_router"
    assert main(["typescript", target, "--out", str(out)]) == 0
    assert main(["typescript", target, "--out", str(out), "--check"]) == 0
    out.write_text("old", encoding="utf-8")
    assert main(["typescript", target, "--out", str(out), "--check"]) == 1
    assert main(["typescript", target]) == 0
    assert "export type AppRouter" in capsys.readouterr().out
    assert main(["typescript", "tests.typing.shop:nothing"]) == 2
    assert "cannot be loaded" in capsys.readouterr().err
