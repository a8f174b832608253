"""Glasses put on faces and taken off them, judged by a classifier that saw only drawn faces.

    seqvae prepare avatars --size 32 -o CORPUS && seqvae train CORPUS ... -o RUN
    python benchmarks/glasses.py RUN

The attribute is learnt of 1,000 faces drawn without and with glasses. 200 others, again the same faces
without and with, are brought to places of it: the bare ones forwards, those that wear glasses back. The
judge, a small convolutional network with an output for each of glasses, skin, hair and its colour, is
trained on 12,000 drawn faces; on the 200 as drawn it is right as often as is printed first. Of each scale:
the share on which the judge sees glasses appear, and disappear, and whose hair, hair colour and skin it
calls as they were drawn; the colour of a bald head is left out. No two of these sets share a seed, nor one
with the corpus.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqvae.pictures import PARTS, avatars
from seqvae.pipeline import Pipeline

SCALES, TRIED, SHOWN, KNOWN, SIDE = (0.0, 1.0, 1.5, 2.0, 2.5, 3.0), 200, 1_000, 12_000, 32
PARTS_SEEN = {name: sorted({*PARTS[name].lower().split()}) for name in ("hair", "hair_colour", "skin")}
HAIR = 1  # its column of labels; that of glasses is 0, the hair's colour comes next
SEEDS = {"judge": 101, "attribute": 102, "tried": 103}
EPOCHS, BATCH = 12, 128


def tensor(images: list[np.ndarray]) -> Tensor:
    """(N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


class Judge(nn.Module):
    """Logits of glasses and of every part."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes = [2, *map(len, PARTS_SEEN.values())]
        layers: list[nn.Module] = []
        for before, after in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(after, after, 3, padding=1, stride=2), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, sum(self.sizes)))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.layers(x).split(self.sizes, 1)

    @torch.inference_mode()
    def right(self, images: list[np.ndarray], labels: Tensor) -> Tensor:
        """(N, parts): 1 where it calls an image by its label, 0 where not, NaN where nothing shows."""
        called = torch.stack([scores.argmax(1) for scores in self(tensor(images))], 1)
        found = (called == labels).float()
        found[labels[:, HAIR] == PARTS_SEEN["hair"].index("none"), HAIR + 1] = torch.nan
        return found

    def learn(self, images: list[np.ndarray], labels: Tensor) -> None:
        x, generator = tensor(images), torch.Generator().manual_seed(0)
        adam = torch.optim.Adam(self.parameters(), 1e-3)
        steps = EPOCHS * (len(x) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 2e-3, total_steps=steps)
        for _ in range(EPOCHS):
            order = torch.randperm(len(x), generator=generator)
            for rows in order[: len(x) // BATCH * BATCH].split(BATCH):
                scores = self(x[rows])
                loss = sum(F.cross_entropy(one, labels[rows, k]) for k, one in enumerate(scores))
                adam.zero_grad()
                loss.backward()
                adam.step()
                schedule.step()


def labelled(found: list[tuple[np.ndarray, dict[str, str]]]) -> tuple[list[np.ndarray], Tensor]:
    rows = [
        [int(parts["glasses"] != "none"), *(of.index(parts[name]) for name, of in PARTS_SEEN.items())]
        for _, parts in found
    ]
    return [image for image, _ in found], torch.tensor(rows)


def drawn(seed: str, count: int) -> list[list[tuple[np.ndarray, dict[str, str]]]]:
    """The same faces without and with glasses."""
    return [list(avatars(count, SEEDS[seed], SIDE, worn)) for worn in (False, True)]


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, judge = Pipeline.from_pretrained(sys.argv[1]), Judge()
    judge.learn(*labelled(list(avatars(KNOWN, SEEDS["judge"], SIDE))))
    attribute = model.attribute(*([image for image, _ in kind] for kind in drawn("attribute", SHOWN)))
    print("               glasses  hair  hair colour  skin")
    tried = [labelled(kind) for kind in drawn("tried", TRIED)]
    for name, (images, labels) in zip(("bare", "worn"), tried, strict=True):
        told = judge.right(images, labels).nanmean(0).tolist()
        print(f"{name}, as drawn {told[0]:7.3f} {told[1]:5.3f} {told[2]:12.3f} {told[3]:5.3f}")
    print("scale  appears  disappears  hair  hair colour  skin")
    for scale in SCALES:
        found = [
            judge.right(model.decode(attribute.shift(model.encode(images), sign * scale)), labels)
            for sign, (images, labels) in zip((1, -1), tried, strict=True)
        ]
        appears, disappears = (1 - part[:, 0].mean().item() for part in found)
        hair, colour, skin = torch.cat(found)[:, HAIR:].nanmean(0).tolist()
        print(f"{scale:5} {appears:8.3f} {disappears:11.3f} {hair:5.3f} {colour:12.3f} {skin:5.3f}")


if __name__ == "__main__":
    main()
