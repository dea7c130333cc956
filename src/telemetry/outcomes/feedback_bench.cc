// Feedback on one core: parse, find the request, count. The floor is one SHA-256 of the id and one parse of the body.
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "telemetry/outcomes/outcomes.h"

int main() {
  using namespace spillway::telemetry;
  using Clock = std::chrono::steady_clock;
  constexpr int kRequests = 200000;
  Outcomes outcomes({});
  std::vector<std::string> bodies;
  const auto recording = Clock::now();
  for (int i = 0; i < kRequests; ++i) {
    RequestRecord request;
    request.id = trace_context("").trace_id;
    request.operation = "chat";
    request.route = "/v1/chat/completions";
    request.model = i % 2 == 0 ? "edge-int8" : "centre";
    request.status = 200;
    request.cost = 0.001 * (i % 7);
    outcomes.record(request);
    bodies.push_back("{\"request_id\":\"" + request.id + "\",\"conversion\":" +
                     (i % 3 == 0 ? "true,\"value\":9.5" : "false") + ",\"relevance\":[3,2,0,1,0],\"thumbs\":\"up\"}");
  }
  const double record_s = std::chrono::duration<double>(Clock::now() - recording).count();
  const auto start = Clock::now();
  int accepted = 0;
  for (const std::string& body : bodies) {
    const auto feedback = parse_feedback(body);
    if (feedback.ok() && outcomes.apply(*feedback, 0, 1000) == Verdict::kAccepted) ++accepted;
  }
  const double s = std::chrono::duration<double>(Clock::now() - start).count();
  std::printf("feedback: %.0f /s on one core (aim: 5000), %d of %d accepted; request remembered in %.2f us\n",
              kRequests / s, accepted, kRequests, record_s / kRequests * 1e6);
  return accepted == kRequests ? 0 : 1;
}
