"""Attention pooling in inference form: the learned query and the last LayerNorm are folded in."""

from torch import Tensor, nn
from torch.nn import functional as F

from export.linear import Dense, fold_layer_norm
from models.deepvit import AttentionPool, activate


class FoldedAttentionPool(nn.Module):
    """Patches [B, N - P, C], normed without the norm's gain and bias, to what the head sees [B, C].

    The query is the same for every image, so Q K^T is one product of the patches with [C, H], and
    patches are pooled before they become values. A row of a softmax sums to one, so V's bias goes
    into the projection's, and what is the same for all keys cancels.
    """

    def __init__(self, pool: AttentionPool, norm: nn.LayerNorm | None) -> None:
        super().__init__()
        H, C = pool.num_heads, pool.latent.shape[-1]
        weight, bias = pool.kv.weight.double(), pool.kv.bias.double()
        if norm is not None:
            folded, bias = fold_layer_norm(norm, pool.kv.weight, pool.kv.bias)
            weight = folded.T  # [2 C, C]
        query = F.linear(pool.latent.double(), pool.q.weight.double(), pool.q.bias.double())
        query = query.reshape(H, 1, C // H) * (C // H) ** -0.5
        keys, values = weight.reshape(2, H, C // H, C)
        self.query = nn.Parameter((query @ keys)[:, 0].T.float().contiguous(), requires_grad=False)
        self.values = nn.Parameter(values.transpose(1, 2).float().contiguous(), requires_grad=False)
        projection = pool.proj.weight.double()
        self.proj = Dense(projection.T, pool.proj.bias.double() + projection @ bias[C:])
        self.eps, self.activation = pool.norm.eps, pool.mlp.activation
        fc1, fc2 = pool.mlp.fc1, pool.mlp.fc2
        self.fc1 = Dense(*fold_layer_norm(pool.norm, fc1.weight, fc1.bias))
        self.fc2 = Dense(fc2.weight.T, fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        maps = (x @ self.query).softmax(dim=1).transpose(1, 2)  # [B, H, N - P]
        heads = (maps @ x).unsqueeze(2)  # [B, H, 1, C]
        pooled = self.proj((heads @ self.values).flatten(1))  # [B, C]
        y = F.layer_norm(pooled, pooled.shape[-1:], eps=self.eps)
        out: Tensor = pooled + self.fc2(activate(self.fc1(y), self.activation))
        return out
