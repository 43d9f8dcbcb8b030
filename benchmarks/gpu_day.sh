#!/bin/sh
# What only a GPU can show, in under eight minutes, the most important first.
#
#     sh benchmarks/gpu_day.sh OUT          # on a GPU
#     sh benchmarks/gpu_day.sh OUT --tiny   # all parts but attention at a tiny shape, on any machine
#
# Every part writes OUT/PART.json when it ends, so a stay that is cut short keeps what was measured.
# A part that fails or takes too long leaves OUT/PART.log and does not stop the others.
set -u
out=${1:?usage: sh benchmarks/gpu_day.sh OUT [--tiny]}
python=${PYTHON:-python}
mkdir -p "$out"

if [ "${2:-}" = --tiny ]; then
    large="d64" large_lm="lm_d64" every="d64" every_lm="lm_d64"
    some="--architectures transformer" turns="--rounds 1 --seconds 0.01" dtype=float32
    variants=as_is patience=10
    preset=cpu sizes=nano seeds=2
else
    large="base,large" large_lm="lm_base,lm_large" every="base4" every_lm="lm_base4"
    some="" turns="--rounds 3 --seconds 0.5" dtype=bfloat16
    variants=as_is,xla patience=1
    preset=t5 sizes=nano,tiny seeds=8
fi

failed=0
part() { # part NAME SECONDS MODULE OPTIONS...: runs a benchmark and keeps its JSON
    name=$1 limit=$2 module=$3
    shift 3
    start=$(date +%s)
    if timeout $((limit * patience)) "$python" -m "benchmarks.$module" "$@" \
        >"$out/$name.part" 2>"$out/$name.log"; then
        mv "$out/$name.part" "$out/$name.json"
        echo "$name: $(($(date +%s) - start)) s"
    else
        failed=1
        echo "$name: failed after $(($(date +%s) - start)) s, see $out/$name.log"
    fi
}

# Lists of options are split on purpose.
# shellcheck disable=SC2086
{
    part lm 120 step_time --shapes $large_lm --dtype $dtype $turns \
        --architectures transformer,llama --variants $variants
    part encoder_decoder 120 step_time --shapes $large --dtype $dtype $turns \
        --architectures transformer --variants $variants
    part zoo_lm 120 step_time --shapes $every_lm --dtype $dtype $turns $some
    part zoo 120 step_time --shapes $every --dtype $dtype $turns $some
    part seeds 60 seeds --steps-only --preset $preset --seeds $seeds --sizes $sizes $turns
    [ "$patience" -gt 1 ] || part attention 60 attention
}
exit $failed
