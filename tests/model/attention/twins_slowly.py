"""The equations of Twins, one position and one cell at a time."""

import torch


def slow_attention(module, one, tokens):
    """One query (b, c) over tokens (b, m, c), head after head, without the projection."""
    query = module.query(one)
    key, value = module.key_value(tokens).chunk(2, dim=-1)
    heads = []
    for q, k, v in zip(
        *(part.chunk(module.heads, -1) for part in (query, key, value)), strict=True
    ):
        weight = torch.exp(module.scale * torch.einsum("bd,bmd->bm", q, k))
        heads.append(torch.einsum("bm,bmd->bd", weight / weight.sum(-1, keepdim=True), v))
    return torch.cat(heads, -1)


def slow_grouped(module, x, context):
    y, window = torch.empty_like(x), module.window
    for row in range(x.shape[-2]):
        for column in range(x.shape[-1]):
            top, left = row // window * window, column // window * window
            near = context[:, :, top : top + window, left : left + window].flatten(2).mT
            attended = slow_attention(module, x[:, :, row, column], near)
            y[:, :, row, column] = module.project(attended)
    return y


def slow_cells(module, context):
    """Every whole cell's mean, or its product with the kernel, normalized."""
    ratio, cells = module.ratio, []
    for top in range(0, context.shape[-2] - ratio + 1, ratio):
        for left in range(0, context.shape[-1] - ratio + 1, ratio):
            cell = context[:, :, top : top + ratio, left : left + ratio]
            if isinstance(module.reduce, torch.nn.AvgPool2d):
                one = cell.mean(dim=(2, 3))
            elif module.reduce.groups > 1:
                kernel = module.reduce.weight.squeeze(1)
                one = (cell * kernel).sum(dim=(2, 3)) + module.reduce.bias
            else:
                one = torch.einsum("bcij,ocij->bo", cell, module.reduce.weight) + module.reduce.bias
            cells.append(one)
    cells = torch.stack(cells, dim=1)
    apart = cells - cells.mean(dim=-1, keepdim=True)
    unit = apart / (apart.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return unit * module.norm.weight + module.norm.bias


def slow_subsampled(module, x, context):
    cells = context.flatten(2).mT if module.ratio == 1 else slow_cells(module, context)
    rows = [slow_attention(module, one, cells) for one in x.flatten(2).unbind(dim=-1)]
    return module.project(torch.stack(rows, dim=1)).mT.unflatten(-1, x.shape[-2:])
