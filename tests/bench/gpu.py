"""The graph on a GPU: PyTorch, a plain export, and ours.

PyTorch and the plain export start from normalised images on the GPU. Ours copies pixels from host
memory and logits back, as the service does.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import onnx
import onnxruntime as ort
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16

from export.verify import sample_images
from models.deepvit import DeepViT
from service.inference.onnx_engine import OnnxEngine
from service.inference.sessions import EngineOptions
from tests.bench import models
from tests.bench.contenders import network, plain_export
from tests.bench.record import Record, table
from tests.bench.timing import Contender, in_turns

BATCHES = (1, 8, 32)
EAGER = "PyTorch eager, fp16"
_OURS = {
    "ours, fp32": EngineOptions(provider="cuda", precision="fp32"),
    "ours, fp16, attention without its kernel, no CUDA graphs": EngineOptions(
        provider="cuda", precision="fp16", attention="plain", cuda_graphs=False
    ),
    "ours, fp16, attention without its kernel": EngineOptions(
        provider="cuda", precision="fp16", attention="plain"
    ),
    "ours, fp16, no CUDA graphs": EngineOptions(
        provider="cuda", precision="fp16", attention="fused", cuda_graphs=False
    ),
    "ours, fp16": EngineOptions(provider="cuda", precision="fp16", attention="fused"),
}


def run(name: str, batches: Sequence[int] = BATCHES, rounds: int = 7, budget_s: float = 30) -> None:
    """Print and record every contender at every batch size."""
    folder = models.exported(name, "fp16")
    record = Record("gpu", name, gpu=torch.cuda.get_device_name())
    trained = network(name)
    size = trained.config.img_size
    eager = {"fp32": trained.eval().cuda(), "fp16": network(name).eval().cuda().half()}
    plain = _plain_sessions(plain_export(trained.cpu(), name))
    trained.cuda()
    engines = dict(_engines(folder))
    for batch in batches:
        images = torch.rand(batch, 3, *size, device="cuda")
        pixels = list(sample_images(batch, size))
        contenders: dict[str, Contender] = {
            f"PyTorch eager, {precision}": _pytorch(module, images)
            for precision, module in eager.items()
        }
        skipped: dict[str, str] = {}
        kinds: dict[str, Callable[[], Contender]] = {
            "torch.compile, fp16, CUDA graphs": partial(_compiled, eager["fp16"], images),
            **{what: partial(_plain, session, images) for what, session in plain.items()},
        }
        for what, prepare in kinds.items():
            try:
                contenders[what] = prepare()
            except Exception as exc:  # noqa: BLE001 - other people's compilers and runtimes
                skipped[what] = f"{type(exc).__name__}: {str(exc).strip()[:200]}"
        contenders |= {what: partial(engine.classify, pixels) for what, engine in engines.items()}
        medians = in_turns(contenders, rounds, budget_s)
        rows: list[list[object]] = []
        for what, seconds in medians.items():
            ratio = round(medians[EAGER] / seconds, 2)
            per_image = round(seconds / batch * 1e3, 4)
            record.add(batch=batch, what=what, ms_per_image=per_image, times_eager=ratio)
            rows.append([what, per_image, round(batch / seconds), f"{ratio}x"])
        print(f"\n{name}, batch {batch}\n")
        print(*table(["", "ms an image", "images/s", "against eager fp16"], rows), sep="\n")
        for what, reason in skipped.items():
            record.add(batch=batch, what=what, skipped=reason)
            print(f"\nskipped: {what}: {reason}")


def _engines(folder: Path) -> Iterator[tuple[str, OnnxEngine]]:
    for what, options in _OURS.items():
        engine = OnnxEngine(folder, options)
        engine.warm_up()
        yield what, engine


def _pytorch(module: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> Contender:
    dtype = next(module.parameters()).dtype if isinstance(module, DeepViT) else torch.float16
    images = images.to(dtype)

    @torch.inference_mode()
    def run() -> None:
        module(images)
        torch.cuda.synchronize()

    return run


def _compiled(module: DeepViT, images: torch.Tensor) -> Contender:
    torch._dynamo.reset()
    run = _pytorch(torch.compile(module, dynamic=False, mode="reduce-overhead"), images)
    for _ in range(3):  # compiled, then captured
        run()
    return run


def _plain_sessions(path: Path) -> dict[str, ort.InferenceSession]:
    half = path.with_name("model.fp16.onnx")
    if not half.exists():
        onnx.save(convert_float_to_float16(onnx.load(path)), half)
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    return {
        f"plain export, ONNX Runtime, {precision}": ort.InferenceSession(file, providers=providers)
        for precision, file in (("fp32", path), ("fp16", half))
    }


def _plain(session: ort.InferenceSession, images: torch.Tensor) -> Contender:
    dtype = torch.float16 if "float16" in session.get_inputs()[0].type else torch.float32
    given = images.to(dtype).contiguous()
    binding = session.io_binding()
    binding.bind_ortvalue_input(
        "images", ort.OrtValue.ortvalue_from_numpy(given.cpu().numpy(), "cuda", 0)
    )
    binding.bind_output("logits", "cuda")
    return partial(session.run_with_iobinding, binding)
