"""Who may include whom: the arrows of ARCHITECTURE.md, held against the #include lines under src/."""
import collections
import pathlib
import re
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EVERYWHERE = {"base", "config", "metrics"}
MAY_INCLUDE = {
    "base": set(),
    "config": {"base"},
    "metrics": {"base"},
    "tensor": set(),
    "kernels": {"tensor"},
    "weights": {"tensor"},
    "store": set(),
    "nn": {"kernels", "weights", "tensor"},
    "models": {"nn", "weights", "kernels", "tensor"},
    "kv": set(),
    "engine": {"models", "kv", "nn", "tensor"},
    "text": set(),
    "api": {"text"},
    "net": set(),
    "telemetry": {"net"},
    "gateway": {"api", "net"},
    "image": set(),
    "server": {"api", "text", "net", "telemetry", "image", "engine", "models", "nn", "tensor"},
}
# The engine sees a model through its interface, the server sees the engine through its own; never a family or a kernel.
NARROW = {
    ("engine", "models"): {"models/language_model.h", "models/one_shot_model.h"},
    ("engine", "nn"): {"nn/kv_storage.h"},
    ("server", "models"): {"models/language_model.h", "models/one_shot_model.h", "models/image_config.h",
                           "models/sentence_config.h"},
    ("server", "nn"): set(),
    ("server", "tensor"): set(),
}
CUDA_MAY = ("src/tensor/cuda/", "src/kernels/cuda/")
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
CUDA = re.compile(r'^\s*#\s*include\s+[<"](cuda|cublas|cudnn|nccl)', re.M)


def sources():
    for path in sorted((ROOT / "src").rglob("*")):
        if path.suffix in (".h", ".cc", ".cu", ".cuh"):
            yield path, path.relative_to(ROOT).as_posix()


def is_test(name):
    return re.search(r"_(test|fuzz|bench)\.cc$", name) or "test_" in name.rsplit("/", 1)[1]


class Includes(unittest.TestCase):
    def test_modules_include_only_what_lies_below_them(self):
        wrong = []
        for path, name in sources():
            module = name.split("/")[1]
            if module == "apps" or is_test(name):
                continue
            self.assertIn(module, MAY_INCLUDE, f"{name}: a module that ARCHITECTURE.md does not know")
            allowed = MAY_INCLUDE[module] | {module} | (EVERYWHERE if module not in EVERYWHERE else set())
            for target in INCLUDE.findall(path.read_text()):
                other = target.split("/")[0]
                if "/" not in target or other not in MAY_INCLUDE:
                    continue
                narrow = NARROW.get((module, other))
                if other not in allowed or (narrow is not None and target not in narrow):
                    wrong.append(f"{name} includes {target}")
        self.assertEqual(wrong, [])

    def test_cuda_headers_stay_in_their_folders(self):
        wrong = [name for path, name in sources() if not name.startswith(CUDA_MAY) and CUDA.search(path.read_text())]
        self.assertEqual(wrong, [])

    def test_every_header_is_guarded(self):
        wrong = [name for path, name in sources() if name.endswith(".h") and "#pragma once" not in path.read_text()]
        self.assertEqual(wrong, [])


class Sizes(unittest.TestCase):
    def test_files_stay_small(self):
        lengths = collections.OrderedDict((name, path.read_text().count("\n")) for path, name in sources())
        self.assertEqual({name: n for name, n in lengths.items() if n > 600}, {})
        middle = sorted(lengths.values())[len(lengths) // 2]
        self.assertLess(middle, 200)


class Words(unittest.TestCase):
    def test_no_unfinished_work_is_left_in_the_sources(self):
        mark = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
        wrong = [f"{name}: {m.group()}" for path, name in sources() for m in [mark.search(path.read_text())] if m]
        self.assertEqual(wrong, [])


if __name__ == "__main__":
    unittest.main()
