"""The table of opt-in categories: runtimes side by side, and what does not pass."""

from __future__ import annotations

from matrix.judge.baseline import Baseline
from matrix.judge.table import judge_table, table_of
from matrix.records.lines import Selection
from matrix.render import on_request
from matrix.render.grid import Results
from tests.matrix.factories import record, run

PATCHED = "kvconform with patches"


def test_runtimes_stand_side_by_side_and_what_fails_has_its_reason() -> None:
    records = [
        record("onnx/as-the-model[llama]", subject=PATCHED),
        record("onnx/as-the-model[gemma3]", "fail", PATCHED, "token 3 | differs"),
        record("onnx/as-the-model[llama]", "fail", "native", "not registered"),
        record("executorch/as-the-model[llama]", subject=PATCHED),
        record("aoti/as-the-model[llama]", "na", PATCHED, "no g++"),
        record("architectures/round-trip[LlamaForCausalLM]", subject=PATCHED),
    ]
    selection = Selection(categories=("aoti", "architectures", "executorch", "onnx"))
    asked = run(*records, selection=selection, subjects=(PATCHED, "native"))
    extra = judge_table(table_of([asked]), Baseline(()))
    text = on_request.files(Results((), (), (), extra=extra))["on-request.md"]
    for line in (
        "| transformers | torch | model | torch.export | saved and loaded | onnxruntime | AOTInductor | ExecuTorch |",
        "| 4.53 | 2.5 | llama |  |  | ✓ | n/a | ✓ |",
        "| 4.53 | 2.5 | gemma3 |  |  | ✗ |  |  |",
        "| 4.53 | 2.5 | onnx | 1/2 | 0/1 |",
        "| 4.53 | 2.5 | aoti | n/a |  |",
        "- transformers 4.53, torch 2.5: `onnx/as-the-model[gemma3]` (fail): token 3 \\| differs",
    ):
        assert f"{line}\n" in text, line
    assert "architectures" not in text


def test_where_nobody_asked_there_is_no_file() -> None:
    assert on_request.files(Results((), (), ())) == {}
