from kafka import KafkaProducer
import time

producer = KafkaProducer(bootstrap_servers=['localhost:9092'], key_serializer=str.encode, value_serializer=str.encode)

def produce_kafka():
    for i in range(10):
        key = 'key{}'.format(i)
        value = 'value{}'.format(i)
        producer.send('topic1', key=key, value=value)
        time.sleep(1)

produce_kafka()
