#!/usr/bin/env python3
"""Publishes one job to lanes. Needs pika: pip install pika, or apt-get install python3-pika."""
import json
import os
import time

import pika

url = os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1:5672/%2f")
connection = pika.BlockingConnection(pika.URLParameters(url))
channel = connection.channel()
channel.confirm_delivery()  # from here on basic_publish waits for the broker and raises if it refuses
channel.basic_publish(
    exchange="lanes",
    routing_key="realtime",  # the lane
    mandatory=True,  # an unknown lane raises UnroutableError instead of losing the job
    body=json.dumps({"email": "ada@example.com", "status": "qualified"}),
    properties=pika.BasicProperties(
        message_id="contact-4711-v3",  # the deduplication id: the same change keeps its id when it is sent again
        delivery_mode=2,  # on disk before the confirm
        timestamp=int(time.time()),
        content_type="application/json",
        headers={"lanes-endpoint": "crm", "lanes-tenant": "acme"},
    ),
)
connection.close()
print("published")
