"""What holds for every file: short enough to be read in one sitting, and names that others use are promised."""

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = [path for name in ("embedcache", "heads") for path in sorted((ROOT / name).rglob("*.py"))]
FILES = [*PACKAGES, ROOT / "cli.py", *sorted((ROOT / "tests").rglob("*.py"))]
MOST_LINES, MOST_LINES_OF_A_FUNCTION = 300, 40
MADE = (ast.FunctionDef, ast.ClassDef)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def promised(tree: ast.Module) -> list[str] | None:
    """What ``__all__`` lists; None without one."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return None


def defined(tree: ast.Module) -> set[str]:
    """Names that a module binds at its top, imported ones and those for type checkers too."""
    found = set[str]()
    inside = [one for node in tree.body if isinstance(node, ast.If) for one in node.body]
    for node in [*tree.body, *inside]:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                found |= {one.asname or one.name for one in names}
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return found


TREES = {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGES}
PROMISED = {module: promised(tree) for module, tree in TREES.items()}


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines without the docstring."""
    first, lines = function.body[0], (function.end_lineno or 0) - function.lineno + 1
    has_text = ast.get_docstring(function) is not None
    return lines - ((first.end_lineno or 0) - first.lineno + 1 if has_text else 0)


def test_files_and_functions_are_short() -> None:
    long = {}
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
        name = str(path.relative_to(ROOT))
        long |= {f"{name}: {one.name}": n for one in functions if (n := lines_of_code(one)) > MOST_LINES_OF_A_FUNCTION}
        if (n_lines := len(text.splitlines())) > MOST_LINES:
            long[name] = n_lines
    assert long == {}


def test_what_a_module_promises_is_there_and_explained() -> None:
    for module, tree in TREES.items():
        names = PROMISED[module] or []
        assert len(set(names)) == len(names) and set(names) <= defined(tree), module
        public = [node for node in tree.body if isinstance(node, MADE) and node.name in names]
        assert [f"{module}.{node.name}" for node in public if not ast.get_docstring(node)] == []


def test_functions_and_classes_of_other_modules_are_promised_there() -> None:
    made = {home: {node.name for node in tree.body if isinstance(node, MADE)} for home, tree in TREES.items()}
    hidden = []
    for module, tree in TREES.items():
        froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module in TREES]
        asked = [(str(node.module), one.name) for node in froms for one in node.names]
        hidden += [
            f"{module} takes {home}.{name}"
            for home, name in asked
            if name in made[home] - set(PROMISED[home] or [name])
        ]
    assert hidden == []
