"""Writes the trace: five minutes of requests of an imagined chain of shops. Seeded, standard library only.

    python3 make_trace.py > trace.csv

What is assumed, all of it here:
- 93% of the requests are short ("assist": routing a question, filling a form, a one-sentence answer). Each begins with
  one of 12 system prompts of 200 to 600 tokens; the question is log-normal with a median of 60 tokens, the answer with a
  median of 22.
- 7% are long ("documents": a contract or a ticket history and a short question about it), log-normal with a median of
  2,500 tokens, nothing shared; the answer has a median of 32.
- Arrivals are Poisson with 24 requests a second; the last minute is a rush with 1.6 times the rate.
"""
import math
import random
import sys

SEED = 20251124
SECONDS = 300
RATE = 24.0  # requests a second outside the rush
RUSH = 1.6
SYSTEM_PROMPTS = 12


def log_normal(rng, median, sigma, low, high):
    return int(min(high, max(low, round(median * math.exp(sigma * rng.gauss(0, 1))))))


def main():
    rng = random.Random(SEED)
    prompts = [rng.randint(200, 600) for _ in range(SYSTEM_PROMPTS)]
    print("arrival_s,prompt_tokens,output_tokens,prefix_id,prefix_tokens,priority,tenant")
    now = 0.0
    while True:
        rate = RATE * (RUSH if int(now // 60) % 5 == 4 else 1)
        now += rng.expovariate(rate)
        if now >= SECONDS:
            return
        if rng.random() < 0.93:
            # Some system prompts are far more used than others.
            prefix = min(int(rng.expovariate(0.35)), SYSTEM_PROMPTS - 1)
            shared = prompts[prefix]
            prompt = shared + log_normal(rng, 60, 0.6, 5, 600)
            output = log_normal(rng, 22, 0.5, 3, 96)
            row = (prompt, output, prefix, shared, 1, "assist")
        else:
            row = (log_normal(rng, 2500, 0.5, 1200, 12000), log_normal(rng, 32, 0.5, 8, 160), -1, 0, 0, "documents")
        print(f"{now:.3f}," + ",".join(str(value) for value in row))


if __name__ == "__main__":
    sys.exit(main())
