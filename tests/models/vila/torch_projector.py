"""A transcription of VILA's projector, mlp_downsample."""

from tests.optional import torch


class DownSample(torch.nn.Module):
  """Blocks of patches, by the list of what each token holds.

  Token k stands in column k // half and row k % half of the blocks; outside of
  the grid there are zeros.
  """

  def forward(self, x):
    batch, num_patches, width = x.shape
    grid = int(num_patches**0.5)
    half = -(-grid // 2)
    rows = []
    for k in range(half * half):
      column_block, row_block = divmod(k, half)
      parts = []
      for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        r, c = 2 * row_block + row, 2 * column_block + column
        inside = r < grid and c < grid
        parts.append(
          x[:, r * grid + c] if inside else torch.zeros(batch, width)
        )
      rows.append(torch.cat(parts, dim=1))
    return torch.stack(rows, dim=1)


class Reference(torch.nn.Module):
  """mlp_downsample; the numbers of its layers are the published names."""

  def __init__(self, config):
    super().__init__()
    self.layers = torch.nn.Sequential(
      DownSample(),
      torch.nn.LayerNorm(4 * config.vision_width),
      torch.nn.Linear(4 * config.vision_width, config.width),
      torch.nn.GELU(),
      torch.nn.Linear(config.width, config.width),
    )
    for name, tensor in self.named_parameters():
      with torch.no_grad():
        if name == 'layers.1.weight':
          tensor.uniform_(0.5, 1.5)
        else:
          tensor.normal_(0, 0.5)

  def forward(self, x):
    return self.layers(x)
