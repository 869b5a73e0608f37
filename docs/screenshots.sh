#!/bin/sh
# Takes pictures of every page, light and dark, with Chromium:
#   docs/screenshots.sh ADDRESS FOLDER [PANEL SERIES]       ADDRESS of a running service, such as http://127.0.0.1:8080
set -eu
address=$1 folder=$2 panel=${3:-air_quality} series=${4:-no2}
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT
mkdir -p "$folder"
for scheme in light dark; do
    # In Blink's numbers 0 is dark and 1 is light.
    [ "$scheme" = dark ] && number=0 || number=1
    while read -r name path; do
        "${CHROMIUM:-chromium}" --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
            --blink-settings=preferredColorScheme=$number --window-size=1200,1300 --virtual-time-budget=10000 \
            --screenshot="$folder/$name-$scheme.png" "$address$path" >/dev/null 2>&1
        echo "$folder/$name-$scheme.png"
    done <<PAGES
overview /
panel /panels/$panel?series=$series
totals /panels/$panel/totals?series=$series&fn=max&threshold=40
accuracy /panels/$panel/accuracy
models /panels/$panel/models
data /panels/$panel/data
jobs /jobs
PAGES
done
