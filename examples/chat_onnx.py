"""The chat loop of `chat.py` on onnxruntime: the same programs as ONNX files, the same answers.

    python -m pip install onnx onnxscript onnxruntime
    python examples/chat_onnx.py "hello" "and you?"

The files stand beside the bundle, and any program that speaks ONNX can run them: their inputs are called `input_ids`,
`attention_mask` and `past_key_values.0.key`, their outputs `logits` and `present.0.key`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import chat

from kvconform.export import ExportedDecoder, to_onnx


def on_onnxruntime(bundle: Path) -> ExportedDecoder:
    """The programs of a bundle, run by onnxruntime."""
    return to_onnx(chat.exported(bundle), bundle.with_name(f"{bundle.name}.onnx"))


if __name__ == "__main__":
    chat.main(on_onnxruntime)
