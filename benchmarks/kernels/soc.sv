// CV32E40P with one memory of single-cycle accesses; a store to MARK prints the cycle it happens in.
module soc (
    input logic clk,
    input logic rst_n
);
  localparam logic [31:0] MARK = 32'h0020_0000;
  logic [31:0] memory[262144];  // 1 Mbyte
  logic instr_req, instr_valid, data_req, data_valid, data_we;
  logic [31:0] instr_addr, instr_rdata, data_addr, data_wdata, data_rdata;
  logic [3:0] data_be;
  longint unsigned cycle;

  initial $readmemh("image.hex", memory);

  always_ff @(posedge clk) begin
    cycle <= cycle + 1;
    instr_valid <= instr_req & rst_n;
    data_valid <= data_req & rst_n;
    if (instr_req) instr_rdata <= memory[instr_addr[19:2]];
    if (data_req && !data_we) data_rdata <= memory[data_addr[19:2]];
    if (data_req && data_we && data_addr == MARK) begin
      $display("mark %0d %0d", data_wdata, cycle);
      if (data_wdata == 0) $finish;
    end else if (data_req && data_we)
      for (int i = 0; i < 4; i++) if (data_be[i]) memory[data_addr[19:2]][8*i+:8] <= data_wdata[8*i+:8];
  end

  cv32e40p_core #(
      .COREV_PULP(1)
  ) core (
      .clk_i(clk),
      .rst_ni(rst_n),
      .pulp_clock_en_i(1'b1),
      .scan_cg_en_i(1'b0),
      .boot_addr_i(32'h0),
      .mtvec_addr_i(32'h0),
      .dm_halt_addr_i(32'h0),
      .hart_id_i(32'h0),
      .dm_exception_addr_i(32'h0),
      .instr_req_o(instr_req),
      .instr_gnt_i(instr_req),
      .instr_rvalid_i(instr_valid),
      .instr_addr_o(instr_addr),
      .instr_rdata_i(instr_rdata),
      .data_req_o(data_req),
      .data_gnt_i(data_req),
      .data_rvalid_i(data_valid),
      .data_we_o(data_we),
      .data_be_o(data_be),
      .data_addr_o(data_addr),
      .data_wdata_o(data_wdata),
      .data_rdata_i(data_rdata),
      .apu_gnt_i(1'b0),
      .apu_rvalid_i(1'b0),
      .apu_result_i('0),
      .apu_flags_i('0),
      .irq_i('0),
      .debug_req_i(1'b0),
      .fetch_enable_i(1'b1),
      .apu_busy_o(),
      .apu_req_o(),
      .apu_operands_o(),
      .apu_op_o(),
      .apu_flags_o(),
      .irq_ack_o(),
      .irq_id_o(),
      .debug_havereset_o(),
      .debug_running_o(),
      .debug_halted_o(),
      .core_sleep_o()
  );
endmodule
