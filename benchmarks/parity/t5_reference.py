"""The encoder half of T5 of transformers 4, of another major version than the one that we use.

Its tokenizers come with the published weights alone; the ids here are written out from their vocabularies.
"""

import cases
import reference
import torch
from transformers import T5Config, T5EncoderModel

LETTERS = "ALGVSREDTIPKFQNYMHWCXBOUZ"  # ids 3, 4, ... behind <pad>, </s>, <unk>
EOS, UNKNOWN = 1, 2


def load(case: cases.Case, tensors: reference.Tensors) -> reference.Embed:
    """The network with the tensors under its own names, every one of which must fit."""
    settings = cases.config(case.family, case.sizes)
    model = T5EncoderModel(T5Config(**settings, dropout_rate=0.0))
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    state["encoder.embed_tokens.weight"] = state["shared.weight"]
    model.load_state_dict(state, strict=True)
    model.eval()
    middle = case.sizes["layers"] // 2

    def embed(sequence: str) -> reference.Rows:
        ids = torch.tensor([[*(_id(letter, case.family) for letter in sequence), EOS]])
        with torch.inference_mode():
            found = model(input_ids=ids, output_hidden_states=True)
        rows = {middle: found.hidden_states[middle], -1: found.last_hidden_state}
        return {layer: one[0, :-1].numpy() for layer, one in rows.items()}  # </s> behind

    return embed


def _id(letter: str, family: str) -> int:
    if family == "prott5" and letter in "UZOB":  # as its authors tell users to write them
        letter = "X"
    return 3 + LETTERS.index(letter) if letter in LETTERS else UNKNOWN


if __name__ == "__main__":
    reference.run(load, ["transformers", "torch"], "transformers.T5EncoderModel")
