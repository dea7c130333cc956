#include <fmt/format.h>

#include <csetjmp>
#include <cstdio>
#include <string>

#include "image/image.h"
// After cstdio, which it needs.
#include <jpeglib.h>

namespace spillway::image {
namespace {

// libjpeg reports an error by a call that must not return.
struct Failure {
  jpeg_error_mgr base;
  std::jmp_buf back;
  char message[JMSG_LENGTH_MAX] = "";
};

void on_error(j_common_ptr info) {
  auto* failure = reinterpret_cast<Failure*>(info->err);
  (*info->err->format_message)(info, failure->message);
  std::longjmp(failure->back, 1);
}

// A warning means that data is missing or broken and would be made up: an error to us, as it is to Pillow.
void on_message(j_common_ptr info, int level) {
  if (level < 0) on_error(info);
}

void from_cmyk(const uint8_t* row, int width, bool inverted, uint8_t* out) {
  for (int x = 0; x < width; ++x, row += 4, out += 3) {
    const int k = inverted ? row[3] : 255 - row[3];
    for (int c = 0; c < 3; ++c) {
      const int ink = inverted ? row[c] : 255 - row[c];
      out[c] = static_cast<uint8_t>((ink * k + 127) / 255);
    }
  }
}

// Everything with a destructor belongs to the caller, so that longjmp skips none.
bool read(jpeg_decompress_struct& info, Failure& failure, std::string_view bytes, const DecodeLimits& limits,
          Image& image, std::vector<uint8_t>& row, Status& status) {
  if (setjmp(failure.back) != 0) return false;
  jpeg_create_decompress(&info);
  info.mem->max_memory_to_use = 256 << 20;
  jpeg_mem_src(&info, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  jpeg_read_header(&info, TRUE);
  status = check_size(info.image_width, info.image_height, limits);
  if (!status.ok()) return true;
  const bool cmyk = info.num_components == 4;
  info.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&info);
  image.width = static_cast<int>(info.output_width);
  image.height = static_cast<int>(info.output_height);
  image.rgb.resize(size_t(image.width) * image.height * 3);
  if (cmyk) row.resize(size_t(image.width) * 4);
  while (info.output_scanline < info.output_height) {
    uint8_t* target = image.rgb.data() + size_t(info.output_scanline) * image.width * 3;
    JSAMPROW line = cmyk ? row.data() : target;
    jpeg_read_scanlines(&info, &line, 1);
    if (cmyk) from_cmyk(row.data(), image.width, info.saw_Adobe_marker != 0, target);
  }
  jpeg_finish_decompress(&info);
  return true;
}

}  // namespace

Result<Image> decode_jpeg(std::string_view bytes, const DecodeLimits& limits) {
  jpeg_decompress_struct info = {};
  Failure failure;
  info.err = jpeg_std_error(&failure.base);
  failure.base.error_exit = on_error;
  failure.base.emit_message = on_message;
  Image image;
  std::vector<uint8_t> row;
  Status status;
  const bool read_whole = read(info, failure, bytes, limits, image, row, status);
  jpeg_destroy_decompress(&info);
  if (!read_whole) return corrupt(fmt::format("JPEG of {} bytes: {}", bytes.size(), failure.message));
  SW_TRY(status);
  return image;
}

}  // namespace spillway::image
