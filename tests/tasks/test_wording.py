"""Published sentences from a user's checkout: read and never run, named in the run, and refused in one line."""

import dataclasses
import re
from pathlib import Path

import pytest

from harness.commands import doctor, show
from harness.config import protocols
from harness.config.catalogue import read
from harness.config.composition import compose
from harness.config.identity import setting_of
from harness.errors import ConfigError, DataError
from tasks.code import HumanEval, Mbpp
from tasks.math import Gsm8k, Math500
from tasks.puzzles import Countdown, Sudoku
from tasks.questions import QuestionTask

CONFIGS = "opencompass/opencompass/configs/datasets"
TASKS = {"gsm8k": Gsm8k, "math500": Math500, "countdown": Countdown, "sudoku": Sudoku}
TASKS |= {"humaneval": HumanEval, "mbpp": Mbpp}
OPENCOMPASS = {
    f"{CONFIGS}/gsm8k/gsm8k_gen.py": "with read_base():\n    from .gsm8k_gen_1d7fe4 import gsm8k_datasets\n",
    f"{CONFIGS}/gsm8k/gsm8k_gen_1d7fe4.py": """
from opencompass.openicl import PromptTemplate
raise SystemExit("a config that is run")
gsm8k_infer_cfg = dict(
    prompt_template=dict(type=PromptTemplate, template=dict(round=[
        dict(role='HUMAN', prompt='Sum: one {and} one?\\n'),
        dict(role='BOT', prompt='It is 2\\n'),
        dict(role='HUMAN', prompt='Sum: two and two?\\n'),
        dict(role='BOT', prompt='It is 4\\n'),
        dict(role='HUMAN', prompt='Sum: {question}\\nThink. \\\\boxed{ANSWER} {}'),
    ])),
    inferencer=dict(type=print, max_out_len=512))
""",
    f"{CONFIGS}/humaneval/humaneval_gen_8e312c.py": """
humaneval_infer_cfg = dict(prompt_template=dict(template=dict(round=[dict(role='HUMAN', prompt='Go on:\\n{prompt}')])))
""",
    f"{CONFIGS}/mbpp/mbpp_gen.py": """
mbpp_infer_cfg = dict(prompt_template=dict(template=dict(round=[
    dict(role="HUMAN", prompt="Do this"), dict(role="BOT", prompt="[BEGIN]\\n 'x = {}' \\n[DONE] \\n\\n "),
    dict(role="HUMAN", prompt="Do: {text} Hold:\\n {test_list}  \\n"), dict(role="BOT", prompt="[BEGIN]\\n"),
])))
""",
}
D1 = {
    "eval/gsm8k.py": '''
GSM_SYSTEM_PROMPT = """You sum. Wrap it in \\\\boxed{}.
<answer>..</answer>"""
class GSM8KDataset:
    def __init__(self, tokenizer, num_examples=0, system_prompt=GSM_SYSTEM_PROMPT, subsample=-1):
        self.few_shot_prompt = f"Question: {tokenizer}"
    def create_prompt(self, input_text):
        messages = [{"role": "user", "content": self.system_prompt + "\\n\\n" + input_text}]
        user_input = self.tokenizer.apply_chat_template(messages)
        if self.add_reasoning:
            return user_input + "<reasoning>!"
        return user_input
    def __getitem__(self, idx):
        question = self.dataset[self.subsample[idx].item()]["question"]
''',
    "eval/math500.py": 'MATH_SYSTEM_PROMPT = "You prove. \\\\boxed{}"\n',
    "eval/countdown.py": """
CTD_SYSTEM_PROMPT = ("Reach it, \\\\boxed" + "{}" + " please, \\\\boxed{a + b}")
class CTDDataset(GSM8KDataset):
    def __getitem__(self, idx):
        question = f"Given: {numbers}\\nWanted: {target}"
""",
    "eval/sudoku.py": """
SUDOKU_SYSTEM_PROMPT = "Fill."
class SudokuDataset(GSM8KDataset):
    def __getitem__(self, idx):
        question = f"Grid: {puzzle}\\n"
""",
}
DPARALLEL = {
    "LLaDA/eval_llada.py": """
class Harness:
    def generate_until(self, requests):
        tail = r" Put it within \\boxed{}."
        start = "Solve:\\n```python\\n{{ prompt }}\\n```\\n "
""",
}
LM_EVAL = {
    "eval_instruct/lm_eval/tasks/gsm8k/gsm8k-cot.yaml": """
task: gsm8k_cot
doc_to_text: 'Q: {{question}}\n\n  A:'
metric_list: [{metric: !function utils.metric}]
""",
    "eval_instruct/lm_eval/tasks/humaneval/humaneval.yaml": "task: humaneval\ndoc_to_text: '{{prompt}}'\n",
    "eval_instruct/lm_eval/tasks/humaneval/humaneval_instruct.yaml": """
include: humaneval.yaml
task: humaneval_instruct
doc_to_text: "Solve:\\n```python\\n{{ prompt }}\\n```"
gen_prefix: "Here {it} is:\\n```python\\n{{ prompt }}\\n"
filter_list: [{filter: [{function: custom, filter_fn: !function utils.build}]}]
""",
    "eval_instruct/lm_eval/tasks/mbpp/mbpp_instruct.yaml": """
task: mbpp_instruct
doc_to_text: "Write:\\n{{text}}\\nTests:\\n{{test_list[0]}}\\n{{test_list[1]}}\\n{{test_list[2]}}"
gen_prefix: "Done:\\n```python\\n"
""",
}
CHECKOUTS = {"llada_oc": OPENCOMPASS, "d1": D1, "dparallel": DPARALLEL, "dream_instruct": LM_EVAL}


def checkout(folder: Path, protocol: str, **changes: str) -> Path:
    """Write a checkout in the public format of a protocol's code, with sentences of our own."""
    for name, text in (CHECKOUTS[protocol] | changes).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return folder


def built(protocol: str, task: str, folder: Path, **changes: object) -> QuestionTask:
    preset = read("protocol", protocol)["tasks"][task]
    keys = ("template", "turns", "shots", "shots_from", "stop", "reading", "set")
    given = {key: preset[key] for key in keys if key in preset} | {"samples": 1, "subset": "first"} | changes
    return TASKS[task](name=task, protocol=protocol, wording=str(folder), **given)  # type: ignore[arg-type]


PROMPTS = {
    "llada_oc/gsm8k": [
        "Sum: one {and} one?\n",
        "It is 2\n",
        "Sum: two and two?\n",
        "It is 4\n",
        "Sum: {question}\nThink. \\boxed{ANSWER} {}",
    ],
    "llada_oc/humaneval": ["Go on:\n{header}"],
    "llada_oc/mbpp": [
        "Do this",
        "[BEGIN]\n 'x = {}' \n[DONE] \n\n ",
        "Do: {text} Hold:\n {tests}  \n",
        "[BEGIN]\n",
        "",
    ],
    "d1/gsm8k": ["You sum. Wrap it in \\boxed{}.\n<answer>..</answer>\n\n{question}", "<reasoning>!"],
    "d1/math500": ["You prove. \\boxed{}\n\n{problem}", "<reasoning>!"],
    "d1/countdown": [
        "Reach it, \\boxed{} please, \\boxed{a + b}\n\nGiven: {listed}\nWanted: {target}",
        "<reasoning>!",
    ],
    "d1/sudoku": ["Fill.\n\nGrid: {puzzle}\n", "<reasoning>!"],
    "dparallel/gsm8k": ["Question: {question}\nAnswer: Put it within \\boxed{}."],
    "dparallel/humaneval": ["Solve:\n```python\n{header}\n```\n "],
    "dream_instruct/gsm8k": ["Q: {question}\nA:"],
    "dream_instruct/humaneval": ["Solve:\n```python\n{header}\n```", "Here {it} is:\n```python\n{header}\n"],
    "dream_instruct/mbpp": ["Write:\n{text}\nTests:\n{tests}", "Done:\n```python\n"],
}


@pytest.mark.parametrize("name", PROMPTS)
def test_sentences_are_the_checkout_s(name: str, tmp_path: Path) -> None:
    """Guards published numbers: every sentence, brace and line end of a prompt comes from the files, nothing is run."""
    protocol, _, task = name.partition("/")
    shots = {"shots": 2 if task == "gsm8k" else 1} if protocol == "llada_oc" and task != "humaneval" else {}
    made = built(protocol, task, checkout(tmp_path, protocol), **shots)
    (sample,) = made.instances()
    said = PROMPTS[name]
    for field, value in sample.instance.words.items():
        said = [text.replace(f"{{{field}}}", value) for text in said]
    assert [turn["content"] for turn in sample.prompt] == said


def test_a_run_says_where_its_sentences_are_from(tmp_path: Path) -> None:
    """Guards the record: files and digest in the run, no warning of our own words; its name follows the sentences."""
    folder = checkout(tmp_path / "a", "d1")
    made = built("d1", "gsm8k", folder)
    facts = dict(made.grading().facts)
    assert made.grading().warnings == ()
    assert (facts["wording"], facts["wording_files"]) == ("checkout", {"question": "eval/gsm8k.py"})
    assert made.sources()[-1] == facts["wording_id"]
    elsewhere = built("d1", "gsm8k", checkout(tmp_path / "b", "d1"))
    other = checkout(tmp_path / "c", "d1", **{"eval/gsm8k.py": D1["eval/gsm8k.py"].replace("You sum", "You add")})
    assert made.sources() == elsewhere.sources() != built("d1", "gsm8k", other).sources()
    assert len(dataclasses.replace(made, wording=None).sources()) == len(made.sources()) - 1


def test_a_path_is_no_part_of_a_run_s_name(tmp_path: Path) -> None:
    """Guards resuming after a checkout was moved; without one, names stay what they were."""
    overrides = ["task=gsm8k", "protocol=d1"]
    moved = [built("d1", "gsm8k", checkout(tmp_path / name, "d1")) for name in ("a", "b")]
    settings = [
        setting_of(models={}, method=None, task=task, data=None, seed=0, gen_length=8, dtype="float32")
        for task in moved
    ]
    assert settings[0] == settings[1]
    assert compose([*overrides, f"protocol.wording={tmp_path}"]).task.wording == str(tmp_path)


@pytest.mark.parametrize(
    ("protocol", "task", "changes", "message"),
    [
        ("d1", "gsm8k", {"eval/gsm8k.py": "def ("}, r"^\S+eval/gsm8k.py: not Python \(.*\); check it out again$"),
        ("d1", "gsm8k", {"eval/gsm8k.py": "A = 1"}, r"gsm8k.py: must have one literal \*SYSTEM_PROMPT, not 0; check"),
        (
            "d1",
            "sudoku",
            {"eval/sudoku.py": "S_SYSTEM_PROMPT = 'a'"},
            r"sudoku.py: no f-string `question` in it; check",
        ),
        (
            "d1",
            "sudoku",
            {"eval/sudoku.py": "S_SYSTEM_PROMPT = 'a'\nquestion = f'{self.grid}'"},
            r"sudoku.py: no field {self.grid}; its templates may name puzzle$",
        ),
        ("dparallel", "gsm8k", {"LLaDA/eval_llada.py": "tail = 1"}, r"eval_llada.py: no text `tail` in it; check"),
        (
            "llada_oc",
            "gsm8k",
            {f"{CONFIGS}/gsm8k/gsm8k_gen.py": "a = 1"},
            r"gsm8k_gen.py: no \*_infer_cfg in it; check",
        ),
        (
            "llada_oc",
            "humaneval",
            {f"{CONFIGS}/humaneval/humaneval_gen_8e312c.py": "x_infer_cfg = dict(prompt_template=load())"},
            r"8e312c.py: prompt_template holds no rounds of literal texts; check",
        ),
        (
            "llada_oc",
            "humaneval",
            {f"{CONFIGS}/humaneval/humaneval_gen_8e312c.py": OPENCOMPASS[f"{CONFIGS}/mbpp/mbpp_gen.py"]},
            r"8e312c.py: no field {text}; its templates may name prompt$",
        ),
        (
            "llada_oc",
            "humaneval",
            {"x/humaneval/humaneval_gen_8e312c.py": ""},
            r"differ; give the folder of one of them$",
        ),
        (
            "dream_instruct",
            "gsm8k",
            {"eval_instruct/lm_eval/tasks/gsm8k/gsm8k-cot.yaml": "task: gsm8k_cot\n: [\n"},
            r"gsm8k-cot.yaml: not YAML \(.*\); check it out again$",
        ),
        (
            "dream_instruct",
            "gsm8k",
            {"eval_instruct/lm_eval/tasks/gsm8k/gsm8k-cot.yaml": "task: gsm8k_cot\ndoc_to_text: !function a.b\n"},
            r"gsm8k-cot.yaml: doc_to_text is no template that can be read without running code$",
        ),
        (
            "dream_instruct",
            "gsm8k",
            {"eval_instruct/lm_eval/tasks/gsm8k/gsm8k-cot.yaml": "task: gsm8k_cot\ndoc_to_text: 'Q: {{quest}}'\n"},
            r"gsm8k-cot.yaml: no field {quest}; its templates may name question$",
        ),
        (
            "dream_instruct",
            "gsm8k",
            {"eval_instruct/lm_eval/tasks/gsm8k/gsm8k-cot.yaml": "task: gsm8k_cot\ndoc_to_text: 'Go'\n"},
            r"gsm8k-cot.yaml: question: must show {question}; check out the published version$",
        ),
    ],
)
def test_files_that_cannot_be_used_end_in_one_line(
    protocol: str, task: str, changes: dict[str, str], message: str, tmp_path: Path
) -> None:
    """Guards the way out: the file, what is wrong with it, and what would do."""
    with pytest.raises(DataError, match=message) as caught:
        built(protocol, task, checkout(tmp_path, protocol, **changes)).instances()
    assert "\n" not in str(caught.value)


def test_a_wrong_folder_ends_in_one_line(tmp_path: Path) -> None:
    """Guards against the sentences of this package under the name of a checkout that has none."""
    with pytest.raises(ConfigError, match=r"^protocol.wording=\S+/no: no such folder; give your checkout"):
        built("d1", "gsm8k", tmp_path / "no").instances()
    with pytest.raises(DataError, match=r"^protocol.wording=\S+: no eval/gsm8k.py in it; `decbench doctor` says which"):
        built("d1", "gsm8k", tmp_path).instances()
    with pytest.raises(ConfigError, match=r"^protocol.wording=x: nobody else published prompts of task=list_copy"):
        protocols.check(compose(["task=list_copy", "protocol.wording=x"]))
    with pytest.raises(ConfigError, match=r"^protocol.wording=x: nobody else published prompts of task=gsm8k under"):
        protocols.check(compose(["task=gsm8k", "protocol.wording=x"]))
    with pytest.raises(ConfigError, match=r"^protocol.wording=\S+: task.template=own-1 is not published elsewhere"):
        built("own", "gsm8k", tmp_path).instances()
    with pytest.raises(ConfigError, match=r"^task.shots=4: \S+ spells out 1 examples$"):
        built("llada_oc", "mbpp", checkout(tmp_path, "llada_oc"), shots=4).instances()


def test_show_and_doctor_name_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Guards what a user sees before a run: which file serves which task, and where the code is to be had."""
    folder = checkout(tmp_path, "dparallel")
    given = ["protocol=dparallel", f"protocol.wording={folder}"]
    assert show.main(given) == 0
    shown = capsys.readouterr().out
    assert "wording of gsm8k: LLaDA/eval_llada.py\n" in shown
    assert re.search(r"wording of mbpp: cannot be read: .*no mbpp/\*\.yaml with `task: mbpp` in it", shown)
    found = {one.name: one for one in doctor._wording("dparallel", given)}
    assert found["dparallel/gsm8k"].available and found["dparallel/gsm8k"].detail == "LLaDA/eval_llada.py"
    assert not found["dparallel/mbpp"].available
    (missing,) = doctor._wording("d1", [])
    assert not missing.available and "gsm8k, math500, countdown, sudoku" in missing.detail
    assert missing.remedy == "git clone https://github.com/dllm-reasoning/d1, then protocol.wording=FOLDER"
    with pytest.raises(ConfigError, match="no such folder"):
        show.main(["protocol=d1", "protocol.wording=/no/such/folder"])
