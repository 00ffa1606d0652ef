"""What the README shows is what the code does."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_theory_example_gives_the_values_it_states():
    (block,) = (code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "DufmProblem" in code)
    names: dict = {}
    set_up, lines = block.split("\ncollapsed_optimum", 1)
    exec(set_up, names)
    shown = re.findall(r"^(\S.*?)\s+# (.*)$", "collapsed_optimum" + lines, re.M)
    assert len(shown) == 3
    for expression, comment in shown:
        value, stated = eval(expression, names), comment.split(":")[0].rstrip(".")
        assert str(value).startswith(stated) or repr(value) == stated.replace('"', "'")
