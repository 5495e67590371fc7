#!/usr/bin/env python3
"""Trains with TRL's trainers at their own defaults and compares each step with that of implex's recipe of the same name.

usage: check_trl.py REQUEST.json       (needs: pip install torch transformers trl datasets)

REQUEST.json is a list of
  name       for messages
  recipe     "trl-reward": RewardTrainer; "trl-dpo": DPOTrainer
  model      folder that both begin with; for trl-reward with a head
  settings   of RewardConfig or DPOConfig, beside the defaults
  rows       at most as many as one step takes, so that their order does not matter: prompt, chosen, rejected as texts
  pairs      how many implex trained on
  trained    folder that implex saved
  steps[i].loss|accuracy|margin|chosenReward|rejectedReward|learningRate    by implex
Prints one line per entry: the largest difference of a figure (beyond 1 a relative one) and of what a tensor learned, relative to that.
Exits with 1 when a figure is beyond 1e-4, or what a tensor learned is beyond 1e-2.
"""
import json, sys, tempfile
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

torch.set_num_threads(2)


def recording(trainer_class):
    """The trainer, keeping what each step's loss, metrics and learning rate were before they are rounded for the log."""

    class Recording(trainer_class):
        def compute_loss(self, *arguments, **keywords):
            result = super().compute_loss(*arguments, **keywords)
            loss = result[0] if isinstance(result, tuple) else result
            metrics = {name: values[-1] for name, values in self._metrics["train"].items() if values}
            rate, = {group["lr"] for group in self.optimizer.param_groups}
            self.recorded.append({**metrics, "loss": loss.item(), "learningRate": rate})
            return result

    return Recording


KINDS = {
    "trl-reward": (AutoModelForSequenceClassification, RewardConfig, recording(RewardTrainer)),
    "trl-dpo": (AutoModelForCausalLM, DPOConfig, recording(DPOTrainer)),
}


def conversation(row):
    sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    return {"prompt": [{"role": "user", "content": row["prompt"]}], **sides}


def train(entry, folder):
    model_class, config_class, trainer_class = KINDS[entry["recipe"]]
    model = model_class.from_pretrained(entry["model"], dtype=torch.float32)
    # tokenizer.json is the truth; AutoTokenizer rebuilds some from the model's type.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(entry["model"])
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.pad_token_id)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # Beside what the entry asks for, all that is not TRL's default is the arithmetic, in f32, and what is written.
    config = config_class(output_dir=folder, bf16=False, use_cpu=True, report_to="none", save_strategy="no",
                          gradient_checkpointing=False, disable_tqdm=True, logging_steps=1, **entry["settings"])
    dataset = Dataset.from_list([conversation(row) for row in entry["rows"]])
    trainer = trainer_class(model=model, args=config, train_dataset=dataset, processing_class=tokenizer)
    trainer.recorded = []
    trainer.train()
    return trainer, before


def figures(recipe, step):
    """TRL's figures under implex's names."""
    if recipe == "trl-reward":
        return {**{name: step[name] for name in ("loss", "accuracy", "margin", "learningRate")}, "meanReward": step["mean_reward"]}
    names = {"accuracy": "accuracies", "margin": "margins", "chosenReward": "chosen", "rejectedReward": "rejected"}
    return {"loss": step["loss"], "learningRate": step["learningRate"],
            **{name: step["rewards/" + other] for name, other in names.items()}}


def difference(recipe, theirs, ours):
    ours = {**ours, "meanReward": (ours["chosenReward"] + ours["rejectedReward"]) / 2}
    expected = figures(recipe, theirs)
    if recipe == "trl-dpo" and expected["margin"] == 0:
        # The first step, where every pair is a tie: 0 in TRL, one half in implex.
        assert expected["accuracy"] == 0 and ours["accuracy"] == 0.5, (expected, ours)
        del expected["accuracy"]
    rate = expected.pop("learningRate")
    assert abs(rate - ours["learningRate"]) <= 1e-9 * rate, f"learning rate {rate}, implex has {ours['learningRate']}"
    return max(abs(value - ours[name]) / max(1, abs(value)) for name, value in expected.items())


def learned(entry, before, after):
    """The largest difference of what a tensor learned, relative to that."""
    model_class = KINDS[entry["recipe"]][0]
    ours = model_class.from_pretrained(entry["trained"], dtype=torch.float32).state_dict()
    worst = 0, ""
    for name, start in before.items():
        theirs = (after[name] - start).norm().item()
        if theirs > 0:
            worst = max(worst, ((ours[name] - after[name]).norm().item() / theirs, name))
    return worst


def main():
    failed = False
    with open(sys.argv[1]) as file:
        request = json.load(file)
    for entry in request:
        with tempfile.TemporaryDirectory() as folder:
            trainer, before = train(entry, folder)
        steps = trainer.recorded
        assert len(trainer.train_dataset) == entry["pairs"], f"{entry['name']}: TRL has {len(trainer.train_dataset)} pairs"
        assert len(steps) == len(entry["steps"]), f"{entry['name']}: TRL has {len(steps)} steps"
        worst = max(difference(entry["recipe"], theirs, ours) for theirs, ours in zip(steps, entry["steps"]))
        change, tensor = learned(entry, before, trainer.model.state_dict())
        failed |= not worst < 1e-4 or not change < 1e-2
        losses = ", ".join(f"{step['loss']:.6f}" for step in steps)
        print(f"{entry['name']}: {entry['pairs']} pairs, losses {losses}; largest difference {worst:.1e}; learned {change:.1e} ({tensor})")
    sys.exit(1 if failed else 0)


main()
