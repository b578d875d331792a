"""Rules for code that trusts nothing it loads, each a look at one node of a syntax tree; ``broken`` applies them.

Names are followed through imports (``from os import system as s`` is ``os.system``); what is reached in a more devious
way is not found. The rules guard against habits, not against an author who means harm.
"""

import ast
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

CODE = {"eval", "exec", "compile", "__import__", "globals", "locals", "vars", "runpy.run_path", "runpy.run_module"}
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "jsonpickle", "yaml"}
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}
PROCESSES = {f"subprocess.{name}" for name in ("run", "Popen", "call", "check_call", "check_output")}
SECRETS = {"random.random", "random.choice", "random.choices", "random.randint", "random.getrandbits", "random.seed",
           "random.shuffle", "random.sample", "uuid.uuid1"}  # fmt: skip
NETWORK = {"urllib.request", "http.client", "http.server", "socket", "ftplib", "telnetlib", "smtplib", "requests",
           "httpx", "aiohttp", "urllib3"}  # fmt: skip
WRITING = re.compile(r"[wax+]")
TEMPORARY_FOLDER = re.compile(r"/(var/)?tmp(/|$)")


@dataclass
class Seen:
    """What a rule may know beside the node: what the file's names stand for, and what the node stands in."""

    names: dict[str, str] = field(default_factory=dict)

    def name(self, node: ast.AST) -> str:
        """The dotted name of ``node``, through the file's imports; empty when it has none."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            before = self.name(node.value)
            return f"{before}.{node.attr}" if before else f"?.{node.attr}"
        return ""


Look = Callable[[ast.AST, Seen], bool]


@dataclass(frozen=True)
class Rule:
    """Forbids the nodes of these ``kinds`` at which ``look`` gives true."""

    look: Look
    kinds: tuple[type[ast.AST], ...] = (ast.Call,)


def broken(source: str, rules: Collection[str] | None = None) -> Iterator[tuple[str, int]]:
    """Every rule (of ``rules``) that ``source`` breaks, with the line."""
    tree = ast.parse(source)
    seen = Seen(dict(_imported(tree)))
    by_kind: dict[type[ast.AST], list[tuple[str, Look]]] = {}
    for name in RULES if rules is None else rules:
        for kind in RULES[name].kinds:
            by_kind.setdefault(kind, []).append((name, RULES[name].look))
    for node in ast.walk(tree):
        for name, look in by_kind.get(type(node), ()):
            if look(node, seen):
                yield name, getattr(node, "lineno", 0)


def _imported(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield (one.asname, one.name) if one.asname else (one.name.split(".")[0], one.name.split(".")[0])
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for one in node.names:
                yield one.asname or one.name, f"{node.module}.{one.name}"


def modules(node: ast.AST) -> list[str]:
    """The modules that a node imports, ``from a import b`` as a and a.b."""
    if isinstance(node, ast.Import):
        return [one.name for one in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{one.name}" for one in node.names)]
    return []


def called(node: ast.AST, seen: Seen) -> str:
    """The dotted name of what a node calls; empty when it calls nothing."""
    return seen.name(node.func).removeprefix("builtins.") if isinstance(node, ast.Call) else ""


def keyword(node: ast.AST, name: str) -> ast.expr | None:
    """The argument ``name`` of a call."""
    found = node.keywords if isinstance(node, ast.Call) else []
    return next((one.value for one in found if one.arg == name), None)


def is_constant(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def argument(node: ast.AST, at: int) -> ast.expr | None:
    """The positional argument number ``at`` of a call."""
    return node.args[at] if isinstance(node, ast.Call) and len(node.args) > at else None


def _imports(names: set[str]) -> Rule:
    def look(node: ast.AST, _: Seen) -> bool:
        return any(module == name or module.startswith(f"{name}.") for module in modules(node) for name in names)

    return Rule(look, (ast.Import, ast.ImportFrom))


def _calls(names: set[str]) -> Rule:
    return Rule(lambda node, seen: called(node, seen) in names)


def _torch_load(node: ast.AST, seen: Seen) -> bool:
    return called(node, seen) == "torch.load" and not is_constant(keyword(node, "weights_only"), True)


def _numpy_load(node: ast.AST, seen: Seen) -> bool:
    found, allowed = called(node, seen), keyword(node, "allow_pickle")
    loads = found in ("numpy.load", "numpy.lib.npyio.NpzFile", "numpy.lib.format.read_array")
    return (loads or allowed is not None) and not is_constant(allowed, False)


def _shell(node: ast.AST, seen: Seen) -> bool:
    wanted, found = keyword(node, "shell"), called(node, seen)
    a_string = isinstance(argument(node, 0), ast.JoinedStr) or (
        isinstance(first := argument(node, 0), ast.Constant) and isinstance(first.value, str)
    )
    spawned = found.startswith(("os.exec", "os.spawn", "os.posix_spawn"))
    return (wanted is not None and not is_constant(wanted, False)) or found in SHELLS or spawned or (
        found in PROCESSES and a_string
    )  # fmt: skip


def _weak_hash(node: ast.AST, seen: Seen) -> bool:
    found, first = called(node, seen), argument(node, 0)
    named = isinstance(first, ast.Constant) and str(first.value).lower() in ("md5", "sha1")
    return found in ("hashlib.md5", "hashlib.sha1") or (found == "hashlib.new" and named)


def _unverified(node: ast.AST, seen: Seen) -> bool:
    if isinstance(node, ast.Assign):
        return is_constant(node.value, False) and any(seen.name(to).endswith(".check_hostname") for to in node.targets)
    found = seen.name(node) if isinstance(node, ast.Attribute) else ""
    return is_constant(keyword(node, "verify"), False) or found in ("ssl._create_unverified_context", "ssl.CERT_NONE")


def _swallowed(node: ast.AST, seen: Seen) -> bool:
    if isinstance(node, ast.ExceptHandler):
        nothing = all(isinstance(line, ast.Pass | ast.Continue) or _is_text(line) for line in node.body)
        return node.type is None or (nothing and not isinstance(node.body[0], ast.Continue))
    names = [seen.name(one) for one in node.args] if isinstance(node, ast.Call) else []
    return called(node, seen) == "contextlib.suppress" and any(name in ("Exception", "BaseException") for name in names)


def _is_text(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def _open_to_all(node: ast.AST, seen: Seen) -> bool:
    if not called(node, seen).endswith(".chmod") and called(node, seen) not in ("os.umask", "os.mkdir", "os.makedirs"):
        return False
    numbers = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, int)]
    return any(number == 0 if called(node, seen) == "os.umask" else number & 0o002 for number in numbers)


def _temporary_folder(node: ast.AST, seen: Seen) -> bool:
    text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
    return called(node, seen) == "tempfile.mktemp" or TEMPORARY_FOLDER.match(text) is not None


def _chosen_by_data(node: ast.AST, seen: Seen) -> bool:
    """A module whose name is computed, or the call of an attribute whose name is."""
    if called(node, seen) == "importlib.import_module":
        return not isinstance(argument(node, 0), ast.Constant)
    inner = node.func if isinstance(node, ast.Call) else None
    return inner is not None and called(inner, seen) == "getattr" and not isinstance(argument(inner, 1), ast.Constant)


def _extracts(node: ast.AST, seen: Seen) -> bool:
    found = called(node, seen)
    return found.endswith((".extractall", ".extract")) or found == "shutil.unpack_archive"


def _writes(node: ast.AST, seen: Seen) -> bool:
    """A file opened to be written, or written whole, without ``store.atomic``."""
    found = called(node, seen)
    if found.startswith("metavqa_cli.store.atomic."):
        return False
    mode = keyword(node, "mode") or argument(node, 1 if found in ("open", "io.open", "os.fdopen") else 0)
    opens = found in ("open", "io.open", "os.fdopen") or found.endswith(".open")
    written = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and len(mode.value) < 5
    return (opens and written and WRITING.search(str(getattr(mode, "value", ""))) is not None) or (
        found.endswith((".write_text", ".write_bytes")) or found in ("shutil.copyfile", "shutil.copy", "torch.save")
    )


def _prints(node: ast.AST, seen: Seen) -> bool:
    found = called(node, seen)
    streams = found in ("sys.stdout.write", "sys.stderr.write", "sys.__stdout__.write", "os.write")
    return found in ("print", "input", "typer.echo", "typer.secho", "click.echo", "rich.print") or streams


def _markup(node: ast.AST, seen: Seen) -> bool:
    """Brackets in a text that would be read as colours and links."""
    return called(node, seen).endswith((".from_markup", "markup.render")) or is_constant(keyword(node, "markup"), True)


RULES: dict[str, Rule] = {
    "runs text as code": _calls(CODE),
    "unpickles": _imports(PICKLES),
    "loads tensors with code in them": Rule(_torch_load),
    "loads a program of torch": _calls({"torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"}),
    "loads arrays with pickles in them": Rule(_numpy_load),
    "hands a line to a shell": Rule(_shell),
    "guessable temporary file": Rule(_temporary_folder, (ast.Call, ast.Constant)),
    "weak hash": Rule(_weak_hash),
    "does not verify the server": Rule(_unverified, (ast.Call, ast.Assign, ast.Attribute)),
    "network beside the gate": _imports(NETWORK),
    "parses XML": _imports({"xml", "lxml"}),
    "calls foreign code": _imports({"ctypes", "cffi"}),
    "checks with assert": Rule(lambda _, __: True, (ast.Assert,)),
    "swallows an error": Rule(_swallowed, (ast.Call, ast.ExceptHandler)),
    "writable by all": Rule(_open_to_all),
    "shared or guessable randomness": _calls(SECRETS),
    "chosen by data": Rule(_chosen_by_data),
    "extracts an archive": Rule(_extracts),
    "opens archives": _imports({"zipfile", "tarfile", "gzip", "bz2", "lzma"}),
    "opens an image": _calls({"PIL.Image.open"}),
    "writes beside the gate": Rule(_writes),
    "prints beside the gate": Rule(_prints),
    "reads markup": Rule(_markup),
}
