"""The counts of `benchmarks.gpu_traffic` on a program short enough to count by hand."""

from benchmarks import gpu_traffic

PROGRAM = """
HloModule step, is_scheduled=true

%row (table: f32[8,16], row.1: f32[1,16], i: s32[]) -> f32[8,16] {
  %table = f32[8,16]{1,0} parameter(0)
  %row.1 = f32[1,16]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %zero = s32[] constant(0)
  %doubled = f32[1,16]{1,0} add(%row.1, %row.1)
  ROOT %updated = f32[8,16]{1,0} dynamic-update-slice(%table, %doubled, %i, %zero)
}

%part (all: bf16[8,16], j: s32[]) -> f32[1,16] {
  %all = bf16[8,16]{1,0} parameter(0)
  %j = s32[] parameter(1)
  %nought = s32[] constant(0)
  %same = bf16[8,16]{1,0} bitcast(%all)
  %slice = bf16[1,16]{1,0} dynamic-slice(%same, %j, %nought), dynamic_slice_sizes={1,16}
  ROOT %wide = f32[1,16]{1,0} convert(%slice)
}

%body (state: (s32[], bf16[8,16], f32[8,16])) -> (s32[], bf16[8,16], f32[8,16]) {
  %state = (s32[], bf16[8,16]{1,0}, f32[8,16]{1,0}) parameter(0)
  %k = s32[] get-tuple-element(%state), index=0
  %taken = bf16[8,16]{1,0} get-tuple-element(%state), index=1
  %given = f32[8,16]{1,0} get-tuple-element(%state), index=2
  %read = f32[1,16]{1,0} fusion(%taken, %k), kind=kLoop, calls=%part, \
metadata={op_name="jit(step)/taps/slice"}
  %written = f32[8,16]{1,0} fusion(%given, %read, %k), kind=kLoop, calls=%row, \
metadata={op_name="jit(step)/taps/add"}
  ROOT %next = (s32[], bf16[8,16]{1,0}, f32[8,16]{1,0}) tuple(%k, %taken, %written)
}

ENTRY %main (a: bf16[8,16], b: bf16[16,16], sums: f32[8,16]) -> f32[8,16] {
  %a = bf16[8,16]{1,0} parameter(0)
  %b = bf16[16,16]{1,0} parameter(1)
  %sums = f32[8,16]{1,0} parameter(2)
  %start = s32[] constant(0)
  %product = (bf16[8,16]{1,0}, s8[32]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$lt$matmul"
  %projected = bf16[8,16]{1,0} get-tuple-element(%product), index=0
  %begin = (s32[], bf16[8,16]{1,0}, f32[8,16]{1,0}) tuple(%start, %projected, %sums)
  %loop = (s32[], bf16[8,16]{1,0}, f32[8,16]{1,0}) while(%begin), condition=%less, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  ROOT %end = f32[8,16]{1,0} get-tuple-element(%loop), index=2
}
"""


def test_loops_slices_and_updates_in_place_count_what_moves():
    found = list(gpu_traffic.kernels(*gpu_traffic.parse(PROGRAM)))
    read = 5 * (
        16 * 2 + 4 + 16 * 4
    )  # of the bfloat16 array a row, the index, and the row in float32
    written = 5 * (16 * 4 + 4 + 16 * 4)  # one row in, the index, and in place one row out
    assert [(kernel.kind, kernel.source, kernel.runs, kernel.moved) for kernel in found] == [
        ("product", "", 1, (8 * 16 + 16 * 16 + 8 * 16) * 2 + 32),
        ("rest", "taps/slice", 5, read),
        ("rest", "taps/add", 5, written),
    ]
