#!/bin/sh
# Backtests of nine data sets with one default configuration, kept per set and seed: what is there already is not run again.
#   docs/benchmark.sh FOLDER OUT [SEED ...]       FOLDER has one wide CSV per set, named as below; set PLUMECAST and MINUTES
set -eu
folder=$1 out=$2
shift 2
for seed in "${@:-1}"; do
    while read -r name frequency horizon windows; do
        [ -f "$out/$name.$seed/metrics.json" ] || "${PLUMECAST:-plumecast}" backtest --data "$folder/$name.csv.gz" \
            --freq "$frequency" --horizon "$horizon" --windows "$windows" --samples 100 --seed "$seed" \
            --train-minutes "${MINUTES:-3}" --out "$out/$name.$seed" </dev/null
    done <<SETS
exchange_rate B 30 5
ETTh1_h24 1h 24 7
ETTh1_h96 1h 96 4
ETTm1_h96 15min 96 7
vic_elec 30min 48 7
ecl_2_of_321 1h 24 7
air_passengers MS 12 3
m5_sample 1d 28 3
elec2 30min 48 7
SETS
done
