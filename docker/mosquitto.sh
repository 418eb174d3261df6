#!/bin/sh
# Writes the password file from the environment, then becomes the broker.
set -eu
rm -f /mosquitto/data/passwords
touch /mosquitto/data/passwords
chmod 0600 /mosquitto/data/passwords
mosquitto_passwd -b /mosquitto/data/passwords "${FETTLE_BROKER_USERNAME:-fettle}" "${FETTLE_BROKER_PASSWORD:?set it in .env}"
chown -R mosquitto:mosquitto /mosquitto/data
exec mosquitto -c /mosquitto/config/mosquitto.conf
