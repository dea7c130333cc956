// gateway_load: a closed-loop HTTP client of one thread for measuring proxies: N connections, each with one request
// under way, every byte of every answer compared with what the upstream itself answers. Knows only as much HTTP as the
// measured programs speak (keep-alive, Content-Length, chunks), so that it costs little beside them.
//   gateway_load --to HOST:PORT [--reference HOST:PORT] [--connections N] [--seconds S] [--requests N] [--stream]
//                [--body-bytes N] [--model NAME] [--rate R] [--header "Name: value"]
// Prints one line of JSON: counts, requests a second, latency and time to first token in microseconds.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string to, reference;
  int connections = 1;
  double seconds = 5;
  int64_t requests_max = 0;  // 0: by time
  bool stream = false;
  size_t body_bytes = 1024;
  std::string model = "ok";
  double rate = 0;  // open loop: requests a second, over all connections; 0: closed loop
  std::vector<std::string> headers;
};

std::string request_text(const Options& options) {
  const std::string head =
      fmt::format(R"({{"model":"{}","stream":{},"max_tokens":64,"messages":[{{"role":"user","content":")",
                  options.model, options.stream ? "true" : "false");
  std::string text;
  while (head.size() + text.size() + 4 < options.body_bytes) text += "the quick brown fox jumps over it ";
  const std::string body =
      head +
      text.substr(0, std::max<size_t>(1, options.body_bytes - std::min(options.body_bytes - 1, head.size() + 4))) +
      "\"}]}";
  std::string out =
      "POST /v1/chat/completions HTTP/1.1\r\nHost: " + options.to + "\r\nContent-Type: application/json\r\n";
  for (const std::string& header : options.headers) out += header + "\r\n";
  return out + fmt::format("Content-Length: {}\r\n\r\n", body.size()) + body;
}

// Reads one response at a time; body() is without chunk framing.
class Response {
 public:
  void reset() {
    state_ = State::kHead;
    head_.clear();
    body_.clear();
    left_ = 0;
    chunked_ = false;
    status_ = 0;
  }
  // Takes what is of this response; false when it is no HTTP.
  bool take(std::string_view bytes) {
    while (!bytes.empty() && state_ != State::kDone) {
      if (state_ == State::kHead) {
        const size_t had = head_.size();
        head_.append(bytes);
        const size_t end = head_.find("\r\n\r\n", had > 3 ? had - 3 : 0);
        if (end == std::string::npos) return head_.size() < (64 << 10);
        bytes.remove_prefix(end + 4 - had);
        head_.resize(end + 2);
        if (!read_head()) return false;
      } else if (state_ == State::kBody) {
        const size_t n = std::min<size_t>(left_, bytes.size());
        body_.append(bytes.substr(0, n));
        bytes.remove_prefix(n);
        left_ -= n;
        if (left_ == 0) state_ = chunked_ ? State::kChunkEnd : State::kDone;
      } else {
        const char c = bytes.front();
        bytes.remove_prefix(1);
        if (!chunk_byte(c)) return false;
      }
    }
    return true;
  }
  bool done() const { return state_ == State::kDone; }
  int status() const { return status_; }
  const std::string& body() const { return body_; }

 private:
  enum class State { kHead, kBody, kChunkSize, kChunkLine, kChunkEnd, kTrailer, kDone };

  bool read_head() {
    if (head_.size() < 12) return false;
    status_ = std::atoi(head_.c_str() + 9);
    std::string lower = head_;
    for (char& c : lower) c = char(std::tolower(c));
    chunked_ = lower.find("transfer-encoding: chunked") != std::string::npos;
    const size_t length = lower.find("content-length:");
    left_ = length == std::string::npos ? 0 : std::strtoull(lower.c_str() + length + 15, nullptr, 10);
    size_ = 0;
    state_ = chunked_ ? State::kChunkSize : left_ > 0 ? State::kBody : State::kDone;
    return chunked_ || length != std::string::npos;
  }

  bool chunk_byte(char c) {
    if (state_ == State::kChunkEnd) {
      if (c == '\n') state_ = State::kChunkSize;
      return c == '\r' || c == '\n';
    }
    if (state_ == State::kTrailer) {
      if (c == '\n') state_ = State::kDone;
      return true;
    }
    if (c == '\n') {
      left_ = size_;
      state_ = size_ > 0 ? State::kBody : State::kTrailer;
      size_ = 0;
      return true;
    }
    if (c == '\r' || state_ == State::kChunkLine) return true;
    if (!std::isxdigit(static_cast<unsigned char>(c))) {
      state_ = State::kChunkLine;
      return c == ';';
    }
    size_ = size_ * 16 + size_t(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    return true;
  }

  State state_ = State::kHead;
  std::string head_, body_;
  size_t left_ = 0, size_ = 0;
  bool chunked_ = false;
  int status_ = 0;
};

int connect_to(const std::string& to) {
  const size_t colon = to.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(uint16_t(std::atoi(to.c_str() + colon + 1)));
  inet_pton(AF_INET, to.substr(0, colon).c_str(), &address.sin_addr);
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    std::perror(to.c_str());
    std::exit(1);
  }
  const int one = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

std::string fetch_reference(const Options& options, const std::string& request) {
  if (options.reference.empty()) return "";
  const int fd = connect_to(options.reference);
  if (::write(fd, request.data(), request.size()) != ssize_t(request.size())) return "";
  Response response;
  char buffer[16384];
  while (!response.done()) {
    const ssize_t n = ::read(fd, buffer, sizeof buffer);
    if (n <= 0 || !response.take({buffer, size_t(n)})) break;
  }
  ::close(fd);
  return response.body();
}

struct Figures {
  int64_t good = 0, refused = 0, wrong = 0, broken = 0;
  std::vector<float> latency_us, first_us, refused_us;
};

class Load {
 public:
  explicit Load(const Options& options)
      : options_(options), request_(request_text(options)), expected_(fetch_reference(options, request_)) {}

  Figures run() {
    epoll_ = ::epoll_create1(0);
    lanes_.resize(size_t(options_.connections));
    for (size_t i = 0; i < lanes_.size(); ++i) open(i);
    began_ = Clock::now();
    const auto end =
        began_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options_.seconds));
    for (size_t i = 0; i < lanes_.size(); ++i) idle_.push_back(i);
    std::vector<epoll_event> events(1024);
    while (busy_ > 0 || !stopping(end)) {
      if (!stopping(end))
        launch();
      else if (busy_ == 0)
        break;
      else if (Clock::now() > end + std::chrono::seconds(60))
        break;
      const int wait_ms = options_.rate > 0 ? 1 : 100;
      const int n = ::epoll_wait(epoll_, events.data(), int(events.size()), wait_ms);
      for (int i = 0; i < n; ++i) readable(size_t(events[size_t(i)].data.u64));
    }
    elapsed_ = std::chrono::duration<double>(Clock::now() - began_).count();
    figures_.broken += busy_;
    return std::move(figures_);
  }
  double elapsed() const { return elapsed_; }

 private:
  struct Lane {
    int fd = -1;
    bool busy = false;
    Clock::time_point sent, due;
    bool first_seen = false;
    Response response;
  };

  bool stopping(Clock::time_point end) const {
    return options_.requests_max > 0 ? sent_ >= options_.requests_max : Clock::now() >= end;
  }

  void open(size_t i) {
    lanes_[i].fd = connect_to(options_.to);
    ::fcntl(lanes_[i].fd, F_SETFL, O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    ::epoll_ctl(epoll_, EPOLL_CTL_ADD, lanes_[i].fd, &event);
  }

  // Sends on idle connections: all of them, or as many as the rate has made due. Latency counts from when a request was
  // due, so that a slow answer is not hidden by requests that were never sent.
  void launch() {
    while (!idle_.empty() && (options_.requests_max == 0 || sent_ < options_.requests_max)) {
      Clock::time_point due = Clock::now();
      if (options_.rate > 0) {
        due = began_ +
              std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(double(sent_) / options_.rate));
        if (due > Clock::now()) return;
      }
      const size_t i = idle_.front();
      idle_.pop_front();
      Lane& lane = lanes_[i];
      lane.busy = true;
      ++busy_;
      ++sent_;
      lane.first_seen = false;
      lane.response.reset();
      lane.due = due;
      lane.sent = Clock::now();
      if (::write(lane.fd, request_.data(), request_.size()) != ssize_t(request_.size())) finish(i, true);
    }
  }

  void readable(size_t i) {
    Lane& lane = lanes_[i];
    char buffer[65536];
    const ssize_t n = ::read(lane.fd, buffer, sizeof buffer);
    if (n < 0 && errno == EAGAIN) return;
    if (!lane.busy) {  // an idle connection was closed
      ::close(lane.fd);
      open(i);
      return;
    }
    if (n <= 0 || !lane.response.take({buffer, size_t(n)})) return finish(i, true);
    if (!lane.first_seen && lane.response.body().find("\"content\":\"t") != std::string::npos) {
      lane.first_seen = true;
      figures_.first_us.push_back(since(lane.sent));
    }
    if (lane.response.done()) finish(i, false);
  }

  static float since(Clock::time_point then) {
    return std::chrono::duration<float, std::micro>(Clock::now() - then).count();
  }

  void finish(size_t i, bool broken) {
    Lane& lane = lanes_[i];
    lane.busy = false;
    --busy_;
    if (broken) {
      ++figures_.broken;
      ::close(lane.fd);
      open(i);
    } else if (lane.response.status() != 200) {
      ++figures_.refused;
      figures_.refused_us.push_back(since(lane.due));
    } else if (!expected_.empty() && lane.response.body() != expected_) {
      ++figures_.wrong;
    } else {
      ++figures_.good;
      figures_.latency_us.push_back(since(lane.due));
    }
    idle_.push_back(i);
  }

  const Options options_;
  const std::string request_, expected_;
  int epoll_ = -1;
  std::vector<Lane> lanes_;
  std::deque<size_t> idle_;
  int64_t busy_ = 0, sent_ = 0;
  Clock::time_point began_;
  double elapsed_ = 0;
  Figures figures_;
};

std::string percentiles(std::vector<float>& values) {
  if (values.empty()) return "null";
  std::ranges::sort(values);
  const auto at = [&](double q) { return values[std::min(values.size() - 1, size_t(q * double(values.size())))]; };
  return fmt::format(R"({{"p50":{:.1f},"p90":{:.1f},"p99":{:.1f},"p999":{:.1f},"max":{:.1f}}})", at(0.5), at(0.9),
                     at(0.99), at(0.999), values.back());
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--stream") {
      options.stream = true;
      continue;
    }
    const char* value = i + 1 < argc ? argv[++i] : "";
    if (flag == "--to")
      options.to = value;
    else if (flag == "--reference")
      options.reference = value;
    else if (flag == "--connections")
      options.connections = std::atoi(value);
    else if (flag == "--seconds")
      options.seconds = std::atof(value);
    else if (flag == "--requests")
      options.requests_max = std::atoll(value);
    else if (flag == "--body-bytes")
      options.body_bytes = size_t(std::atoll(value));
    else if (flag == "--model")
      options.model = value;
    else if (flag == "--rate")
      options.rate = std::atof(value);
    else if (flag == "--header")
      options.headers.emplace_back(value);
    else {
      std::fprintf(stderr, "unknown flag %s\n", argv[i]);
      return 2;
    }
  }
  Load load(options);
  Figures figures = load.run();
  fmt::print(
      R"({{"good":{},"refused":{},"wrong":{},"broken":{},"seconds":{:.3f},"per_s":{:.1f},"latency_us":{},"first_us":{},"refused_us":{}}})"
      "\n",
      figures.good, figures.refused, figures.wrong, figures.broken, load.elapsed(),
      double(figures.good) / load.elapsed(), percentiles(figures.latency_us), percentiles(figures.first_us),
      percentiles(figures.refused_us));
  return 0;
}
