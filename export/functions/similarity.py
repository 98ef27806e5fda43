"""The operators of similarity.py, for maps of any shape."""

import onnx_ir as ir

from export.functions import DOMAIN, define


def add(model: ir.Model) -> None:
    """Add the functions whose operators a model uses."""
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type in _NEEDED:
            count = len(node.inputs) - (node.op_type == "SoftmaxSimilarity")  # it takes the reach
            blocks = ", ".join(f"block_{index}" for index in range(count))
            texts = [_FUNCTIONS[name] for name in _NEEDED[node.op_type]]
            define(model, [text % {"L": count, "blocks": blocks} for text in texts])


# The operators, and the functions that they call: cosines.py and measures.py say more about each
# step. For Reshape, a size of 0 is kept, and -1 is the rest.
_FUNCTIONS = {
    "Similarity": """
        Similarity (%(blocks)s) => (column, row, centred, neighbours, heads)
        {
            first = Constant <value_ints = [0]> ()
            last = Constant <value_ints = [-1]> ()
            apart_shape = Constant <value_ints = [%(L)d, -1]> ()
            all = Concat <axis = 0> (%(blocks)s)
            H = Shape <start = 1, end = 2> (all)
            N = Shape <start = 3> (all)

            maps_shape = Concat <axis = 0> (apart_shape, H, N, N)
            maps = Reshape (all, maps_shape)
            row_products = deepvit.Products (maps)
            row_squares = deepvit.Diagonal <below = 0> (row_products)
            row_unit = deepvit.Inverse (row_squares)
            row = deepvit.MeanCosine (row_products, row_unit)

            rows_shape = Concat <axis = 0> (first, last, N)
            rows = Reshape (all, rows_shape)
            transposed = Transpose <perm = [0, 2, 1]> (rows)
            columns_shape = Concat <axis = 0> (apart_shape, N, H, N)
            columns = Reshape (transposed, columns_shape)
            means = ReduceMean (columns, last)
            apart = Sub (columns, means)
            means_by_head = Squeeze (means, last)
            means_by_block = Transpose <perm = [1, 2, 3, 0]> (means_by_head)
            entries = CastLike (N, all)
            length_of_ones = Sqrt (entries)
            mean = Mul (length_of_ones, means_by_block)
            products = deepvit.Products (apart)
            squares = deepvit.Diagonal <below = 0> (products)
            mean_squares = Mul (mean, mean)
            whole_squares = Add (squares, mean_squares)
            unit = deepvit.Inverse (whole_squares)

            cosine_apart = deepvit.MeanCosine (products, unit)
            scaled = Mul (mean, unit)
            cosine_of_means = deepvit.MeanProduct (scaled)
            column = Add (cosine_apart, cosine_of_means)

            noise = Constant <value_float = 1e-12> ()
            nothing = Constant <value_float = 0.0> ()
            floor = Mul (noise, whole_squares)
            loud = Greater (squares, floor)
            any_unit_apart = deepvit.Inverse (squares)
            unit_apart = Where (loud, any_unit_apart, nothing)
            centred = deepvit.MeanCosine (products, unit_apart)

            next_products = deepvit.Diagonal <below = 1> (products)
            next_means = deepvit.Neighbours (mean)
            next_unit = deepvit.Neighbours (unit)
            next_whole = Add (next_products, next_means)
            cosines = Mul (next_whole, next_unit)
            neighbours = Transpose <perm = [0, 3, 2, 1]> (cosines)

            flipped = Transpose <perm = [0, 1, 2, 4, 3]> (apart)
            head_products_apart = MatMul (apart, flipped)
            head_products_shape = Concat <axis = 0> (last, N, H, H)
            head_products = Reshape (head_products_apart, head_products_shape)
            by_token_shape = Concat <axis = 0> (last, N, H)
            unit_by_block = Transpose <perm = [3, 0, 1, 2]> (unit)
            unit_by_token = Reshape (unit_by_block, by_token_shape)
            scaled_by_block = Transpose <perm = [3, 0, 1, 2]> (scaled)
            scaled_by_token = Reshape (scaled_by_block, by_token_shape)
            head_cosine_apart = deepvit.MeanCosine (head_products, unit_by_token)
            head_cosine_of_means = deepvit.MeanProduct (scaled_by_token)
            head_cosine = Add (head_cosine_apart, head_cosine_of_means)
            heads_shape = Concat <axis = 0> (apart_shape, H, H)
            heads_by_block = Reshape (head_cosine, heads_shape)
            heads = Transpose <perm = [1, 0, 2, 3]> (heads_by_block)
        }
    """,
    "SoftmaxSimilarity": """
        SoftmaxSimilarity <prefix> (reach, %(blocks)s)
            => (column, row, centred, neighbours, heads, entropy, distance)
        {
            column, row, centred, neighbours, heads = deepvit.Similarity (%(blocks)s)

            apart_shape = Constant <value_ints = [%(L)d, -1]> ()
            last = Constant <value_ints = [-1]> ()
            tiny = Constant <value_float = 1e-20> ()
            all = Concat <axis = 0> (%(blocks)s)
            whole_shape = Shape <start = 1> (all)
            maps_shape = Concat <axis = 0> (apart_shape, whole_shape)
            maps = Reshape (all, maps_shape)

            bounded = Clip (maps, tiny)
            log = Log (bounded)
            products = Mul (maps, log)
            sums = ReduceSum <keepdims = 0> (products, last)
            negative_entropy = ReduceMean <keepdims = 0> (sums, last)
            entropy_by_block = Neg (negative_entropy)
            entropy = Transpose <perm = [1, 0, 2]> (entropy_by_block)

            prefix_tokens = Constant <value_int: int = @prefix> ()
            patches_from = Reshape (prefix_tokens, last)
            N = Shape <start = 3> (all)
            query_axis = Constant <value_ints = [3]> ()
            key_axis = Constant <value_ints = [4]> ()
            weighted = Mul (maps, reach)
            far = ReduceSum <keepdims = 0> (weighted, last)
            to_patches = Slice (maps, patches_from, N, key_axis)
            share = ReduceSum <keepdims = 0> (to_patches, last)
            bounded_share = Clip (share, tiny)
            distances = Div (far, bounded_share)
            of_patches = Slice (distances, patches_from, N, query_axis)
            distance_by_block = ReduceMean <keepdims = 0> (of_patches, last)
            distance = Transpose <perm = [1, 0, 2]> (distance_by_block)
        }
    """,
    "FeatureSimilarity": """
        FeatureSimilarity (%(blocks)s) => (similarity)
        {
            last = Constant <value_ints = [-1]> ()
            end = Constant <value_ints = [2147483647]> ()
            block_axis = Constant <value_ints = [1]> ()
            tiny = Constant <value_float = 1e-20> ()
            apart_shape = Constant <value_ints = [0, %(L)d, -1]> ()
            all = Concat <axis = 1> (%(blocks)s)
            C = Shape <start = 2> (all)
            tokens_shape = Concat <axis = 0> (apart_shape, C)
            tokens = Reshape (all, tokens_shape)

            squares = Mul (tokens, tokens)
            square = ReduceSum <keepdims = 0> (squares, last)
            any_length = Sqrt (square)
            length = Clip (any_length, tiny)
            last_tokens = Slice (tokens, last, end, block_axis)
            last_length = Slice (length, last, end, block_axis)
            with_last = Mul (tokens, last_tokens)
            products = ReduceSum <keepdims = 0> (with_last, last)
            scaled = Div (products, length)
            cosines = Div (scaled, last_length)
            similarity = ReduceMean <keepdims = 0> (cosines, last)
        }
    """,
    "Products": """
        Products (vectors) => (products)
        {
            left = Transpose <perm = [1, 2, 3, 0, 4]> (vectors)
            right = Transpose <perm = [1, 2, 3, 4, 0]> (vectors)
            products = MatMul (left, right)
        }
    """,
    "Diagonal": """
        Diagonal <below> (products) => (entries)
        {
            flat_shape = Constant <value_ints = [0, 0, 0, -1]> ()
            axis = Constant <value_ints = [3]> ()
            end = Constant <value_ints = [2147483647]> ()
            one = Constant <value_ints = [1]> ()
            down = Constant <value_int: int = @below> ()
            L = Shape <start = 4> (products)
            start = Mul (L, down)
            step = Add (L, one)
            flat = Reshape (products, flat_shape)
            entries = Slice (flat, start, end, axis, step)
        }
    """,
    "Neighbours": """
        Neighbours (values) => (products)
        {
            first = Constant <value_ints = [0]> ()
            second = Constant <value_ints = [1]> ()
            last = Constant <value_ints = [-1]> ()
            end = Constant <value_ints = [2147483647]> ()
            earlier = Slice (values, first, last, last)
            later = Slice (values, second, end, last)
            products = Mul (later, earlier)
        }
    """,
    "Inverse": """
        Inverse (squares) => (inverse)
        {
            shortest = Constant <value_float = 1e-36> ()
            bounded = Clip (squares, shortest)
            length = Sqrt (bounded)
            inverse = Reciprocal (length)
        }
    """,
    "MeanCosine": """
        MeanCosine (products, unit) => (cosine)
        {
            one = Constant <value_ints = [1]> ()
            last = Constant <value_ints = [-1]> ()
            first = Constant <value_ints = [0]> ()
            end = Constant <value_ints = [2147483647]> ()
            beside = Constant <value_ints = [-2]> ()
            K = Shape <start = -1> (unit)
            pairs = Mul (K, K)
            step = Add (K, one)
            other_unit = Unsqueeze (unit, beside)
            scaled = Mul (products, other_unit)
            scaled_shape = Concat <axis = 0> (first, last, pairs)
            scaled_flat = Reshape (scaled, scaled_shape)
            unit_shape = Concat <axis = 0> (first, last, K)
            unit_flat = Reshape (unit, unit_shape)
            transposed = Transpose <perm = [0, 2, 1]> (unit_flat)
            sums_of_all = MatMul (transposed, scaled_flat)
            sums_shape = Concat <axis = 0> (first, pairs, K)
            sums_flat = Reshape (sums_of_all, sums_shape)
            sums = Slice (sums_flat, first, end, one, step)
            vectors = Shape <start = 1, end = 2> (unit_flat)
            count = CastLike (vectors, sums)
            cosine = Div (sums, count)
        }
    """,
    "MeanProduct": """
        MeanProduct (values) => (product)
        {
            first = Constant <value_ints = [0]> ()
            last = Constant <value_ints = [-1]> ()
            K = Shape <start = -1> (values)
            flat_shape = Concat <axis = 0> (first, last, K)
            flat = Reshape (values, flat_shape)
            transposed = Transpose <perm = [0, 2, 1]> (flat)
            sums = MatMul (transposed, flat)
            vectors = Shape <start = 1, end = 2> (flat)
            count = CastLike (vectors, sums)
            product = Div (sums, count)
        }
    """,
}
_OF_SIMILARITY = (
    "Similarity",
    "Products",
    "Diagonal",
    "Neighbours",
    "Inverse",
    "MeanCosine",
    "MeanProduct",
)
_NEEDED = {  # by an operator
    "Similarity": _OF_SIMILARITY,
    "SoftmaxSimilarity": ("SoftmaxSimilarity", *_OF_SIMILARITY),
    "FeatureSimilarity": ("FeatureSimilarity",),
}
