from __future__ import annotations

import re
from pathlib import Path

DOC = Path(__file__).parents[3] / "docs" / "kvcache.md"


def test_the_example_runs_and_prints_what_the_text_says(capsys):
    text = DOC.read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, str(DOC), "exec"), {"__name__": "example"})
    for line in capsys.readouterr().out.splitlines():
        assert f"`{line}`" in text
